"""Packs phrases into captions that fit the text window, and turns logits of tokens into scores of phrases."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.models.tokens import plain_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Caption:
    """One text input of the model: "red car . dog ." with its special tokens."""

    input_ids: tuple[int, ...]
    """(T,) vocabulary ids."""
    phrases: tuple[int, ...]
    """(P,) indices of the phrases in it, into those asked for; phrases of equal text share their tokens."""
    spans: tuple[tuple[int, int], ...]
    """(P,) first token of each phrase and the one after its last, which is its separator."""


class TokenScores:
    """Reduces the token logits of one caption to a score a phrase."""

    def __init__(self, caption: Caption, device: str) -> None:
        """Put the places of each phrase's tokens on the device."""
        self.caption = caption
        longest = max((stop - start for start, stop in caption.spans), default=1)
        # Shorter phrases name their last token again, which changes no maximum.
        places = [[min(start + step, stop - 1) for step in range(longest)] for start, stop in caption.spans]
        self._places = torch.tensor(places, dtype=torch.int64).view(len(places), longest).to(device)

    def __call__(self, logits: Tensor) -> Tensor:
        """Take the greatest sigmoid over each phrase's tokens: (B, Q, P) in [0, 1]; NaN stays NaN.

        The logits (B, Q, T') are of at least the caption's tokens.
        """
        tokens = logits.index_select(2, self._places.flatten())
        return tokens.view(*logits.shape[:2], *self._places.shape).amax(3).sigmoid()


def pack_captions(phrases: Sequence[str], tokenizer: "PreTrainedTokenizerBase", max_tokens: int) -> list[Caption]:
    """Pack phrases, in their order, into as few captions as their order allows.

    Tokens are assembled phrase by phrase, so that spans are known and never searched for in decoded text. A phrase
    is asked for in lower case; '.', '?', '[' and ']', by which the model separates phrases and marks special tokens,
    count as spaces ("St. Bernard" is asked for as "st bernard"). Equal phrases are asked for once. Special tokens count
    among the `max_tokens` of a caption.

    Raises:
        UserError: A phrase is too long for a caption of its own, or has no token that the tokenizer knows.
    """
    members: dict[str, list[int]] = {}
    for index, phrase in enumerate(phrases):
        members.setdefault(plain_text(phrase), []).append(index)
    pieces = {text: _pieces(text, phrases[indices[0]], tokenizer, max_tokens) for text, indices in members.items()}
    groups: list[list[str]] = []
    room = 0
    for text, ids in pieces.items():
        if len(ids) + 1 > room:
            groups.append([])
            room = max_tokens - 2
        groups[-1].append(text)
        room -= len(ids) + 1
    return [_caption([(pieces[text], members[text]) for text in group], tokenizer) for group in groups]


def _pieces(text: str, phrase: str, tokenizer: "PreTrainedTokenizerBase", max_tokens: int) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    if all(number == tokenizer.unk_token_id for number in ids):
        raise UserError(f"prompt {phrase!r} has no token that the text encoder knows; write it otherwise")
    longest = max_tokens - 3  # start, separator, end
    if len(ids) > longest:
        shown = phrase if len(phrase) <= 60 else phrase[:57] + "..."
        raise UserError(f"prompt {shown!r} has {len(ids)} tokens and the text window holds {longest}; shorten it")
    return ids


def _caption(group: Sequence[tuple[list[int], list[int]]], tokenizer: "PreTrainedTokenizerBase") -> Caption:
    separator = tokenizer.convert_tokens_to_ids(".")
    ids = [tokenizer.cls_token_id]
    places: list[tuple[int, int, int]] = []
    for pieces, members in group:
        places += [(index, len(ids), len(ids) + len(pieces)) for index in members]
        ids += [*pieces, separator]
    ids.append(tokenizer.sep_token_id)
    places.sort()
    return Caption(
        tuple(ids), tuple(index for index, _, _ in places), tuple((start, stop) for _, start, stop in places)
    )

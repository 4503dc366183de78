"""Scores of phrases from logits of tokens."""

import torch
from torch import Tensor

from tasks.models.groundingdino.captions import Caption


class TokenScores:
    """Reduces the token logits of one caption to a score a phrase."""

    def __init__(self, caption: Caption, device: str) -> None:
        """Put the caption's spans on the device."""
        self.caption = caption
        distinct = {span: number for number, span in enumerate(dict.fromkeys(caption.spans))}
        self._texts = len(distinct)
        owner = torch.full((len(caption.input_ids),), self._texts)  # special tokens are nobody's
        for (start, stop), number in distinct.items():
            owner[start:stop] = number
        self._owner = owner.to(device)
        self._columns = torch.tensor([distinct[span] for span in caption.spans]).to(device)

    def __call__(self, logits: Tensor) -> Tensor:
        """Take the greatest sigmoid over each phrase's tokens; NaN stays NaN.

        Args:
            logits: (B, Q, T') of at least the caption's tokens.

        Returns:
            (B, Q, P) in [0, 1].
        """
        tokens = logits[:, :, : len(self._owner)].sigmoid()
        texts = torch.zeros(*tokens.shape[:2], self._texts + 1, dtype=tokens.dtype, device=tokens.device)
        texts.scatter_reduce_(2, self._owner.expand_as(tokens), tokens, "amax")
        return texts[:, :, self._columns]

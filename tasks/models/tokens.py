"""Finds classes that a detector cannot tell apart, by what its tokenizer makes of their prompts; no model is loaded."""

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vouch_labels.schemas.campaign import ClassConfig, DetectorConfig
from vouch_labels.schemas.errors import CheckpointError, UserError
from vouch_labels.tasks.models.checkpoints import resolve, tokenizer_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Tokens = Callable[[str], tuple[str, ...]]
"""Gives what a text is to a detector: texts of equal tokens have equal scores."""

_SEPARATORS: Final = re.compile(r"[.?\[\]\s]+")


def plain_text(phrase: str) -> str:
    """The phrase as Grounding DINO is asked for it: lower case, without separators, single spaces."""
    return _SEPARATORS.sub(" ", phrase.lower()).strip()


def single_spaced(phrase: str) -> str:
    """The phrase as OWL is asked for it: lower case, single spaces."""
    return " ".join(phrase.lower().split())


def check_apart(classes: Sequence[ClassConfig], tokens: Tokens) -> None:
    """Refuse classes of which a detector reads a prompt of each as the same: every object would be of the first.

    Raises:
        UserError: Two classes are one to it, or a class has one text as prompt and as negative.
    """
    owners: dict[tuple[str, ...], tuple[str, str]] = {}
    for entry in classes:
        own = {tokens(text): text for text in entry.texts}
        for read, text in own.items():
            other, prompt = owners.setdefault(read, (entry.name, text))
            if other != entry.name:
                raise UserError(
                    f"classes {other!r} and {entry.name!r} are one to the detector, which reads {prompt!r} and "
                    f"{text!r} both as {' '.join(read)!r}, so {other!r} would get every object: give one of them other "
                    "prompts, or make them one class"
                )
        for text in entry.negatives:
            if (read := tokens(text)) in own:
                raise UserError(
                    f"class {entry.name!r}: the detector reads the prompt {own[read]!r} and the negative {text!r} both "
                    f"as {' '.join(read)!r}; remove one of them"
                )


def check_classes(classes: Sequence[ClassConfig], config: DetectorConfig) -> None:
    """As `check_apart`, by the detector's tokenizer alone; where that is not on this machine yet, nothing is checked.

    Raises:
        UserError: As `check_apart`.
    """
    tokens = None
    try:
        if config.backend == "groundingdino":
            # What is not here is fetched with a word of progress, later.
            weights = resolve(config, "detector", download=False)
            tokens = reader(tokenizer_folder(config.text_encoder, weights), plain_text)
        elif config.backend == "transformers" and not config.checkpoint.startswith("hf://"):
            folder = Path(config.checkpoint).expanduser()
            kind = str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type"))
            tokens = reader(folder, single_spaced if kind.startswith("owl") else plain_text)
    except (CheckpointError, OSError, ValueError, AttributeError):
        pass  # the backend says what is wrong when it loads
    if tokens is not None:
        check_apart(classes, tokens)


def reader(folder: Path, plain: Callable[[str], str]) -> Tokens | None:
    """Read texts, put into the form in which they are asked for, by the tokenizer of a folder; None if it has none."""
    tokenizer = _tokenizer(folder)
    if tokenizer is None:
        return None
    return lambda text: tuple(tokenizer.encode(plain(text), add_special_tokens=False).tokens)


@lru_cache(maxsize=2)
def _tokenizer(folder: Path) -> "Tokenizer | None":
    """Load a tokenizer by the package that transformers loads it with, whose own import takes seconds."""
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    file = folder / "tokenizer.json"
    try:
        if file.is_file():
            tokenizer: Tokenizer = Tokenizer.from_file(str(file))
        else:
            settings = folder / "tokenizer_config.json"
            known = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
            lower = bool(known.get("do_lower_case", True))
            tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=lower)
    except Exception:  # the package raises bare ones; the backend says what is wrong when it loads
        return None
    return tokenizer

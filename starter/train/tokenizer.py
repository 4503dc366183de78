"""Builds the WordPiece tokenizer that the starter detector and scorer share."""

import pydoc_data.topics
import re
import string
from collections import Counter
from pathlib import Path

from transformers import BertTokenizerFast

from starter.scenes.vocabulary import COLOURS, CORE, EXTENDED

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_TEMPLATE_WORDS = "a an the photo picture image drawing of one some small large big old new and or with in on"
_MORE_COLOURS = "pink brown black white grey gray orange violet golden silver dark light bright"
_ENDINGS = (
    "s es ed er ers ing ings ly ness ment tion sion able ible ful less ous ive al ic ish y ies est ist ism ity ty th "
    "en on in an er or ar le el et it at ot ut ch sh ck ll ss tt st nd nt ng rd rt ight ound own ain ate age ance "
    "ence ant ent ard berry boat bird board box book fish man men house hopper light line port ship side stick "
    "stone time top tree ward way wood work phone scope cycle craft plane ball"
)


def build_tokenizer(folder: Path, pieces: int = 4000) -> None:
    """Write a BERT tokenizer folder (vocab.txt, tokenizer.json and its config).

    Every word of the drawn world is one piece; single characters and their continuations make every other word
    legal; common English words, counted in Python's own language reference, and word endings keep those short.

    Args:
        folder: Where to write; made if missing.
        pieces: Size of the vocabulary.
    """
    folder.mkdir(parents=True, exist_ok=True)
    world = [word for noun in CORE + EXTENDED for word in (noun.name, *noun.synonyms)]
    characters = string.ascii_lowercase + string.digits
    ordered = [*_SPECIAL, *string.punctuation, *characters, *("##" + character for character in characters)]
    ordered += [*COLOURS, *_MORE_COLOURS.split(), *_TEMPLATE_WORDS.split(), *world, *(word + "s" for word in world)]
    ordered += ["##" + ending for ending in _ENDINGS.split()]
    ordered += _common_words()
    vocabulary = list(dict.fromkeys(ordered))[:pieces]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(
        vocab={piece: number for number, piece in enumerate(vocabulary)}, do_lower_case=True, model_max_length=256
    )
    tokenizer.save_pretrained(str(folder))


def _common_words() -> list[str]:
    """English words of Python's language reference, the most frequent first, ties in alphabetical order."""
    text = " ".join(pydoc_data.topics.topics.values()).lower()
    counts = Counter(re.findall(r"(?<![\w.])[a-z]{3,12}(?![\w(])", text))
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]

"""The tokenizer is rebuilt as it is shipped, knows the world's words whole, and takes any text."""

from pathlib import Path

from transformers import AutoTokenizer

from starter.scenes.vocabulary import COLOURS, CORE, EXTENDED
from starter.train.tokenizer import build_tokenizer

SHIPPED = Path(__file__).parents[3] / "starter" / "weights" / "tokenizer"


def test_every_word_of_the_world_is_one_piece_and_others_are_legal() -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(SHIPPED))
    for word in [*COLOURS, *(name for noun in CORE + EXTENDED for name in (noun.name, *noun.synonyms))]:
        assert tokenizer.tokenize(word) == [word]
    assert tokenizer.unk_token not in tokenizer.tokenize("a Zeppelin, two xylophones and 42 quokkas.")


def test_building_writes_the_shipped_world_words(tmp_path: Path) -> None:
    build_tokenizer(tmp_path)
    built, shipped = ((folder / "vocab.txt").read_text().splitlines() for folder in (tmp_path, SHIPPED))
    # Behind these come common words, which differ between versions of Python.
    known = shipped.index("##ball") + 1
    assert built[:known] == shipped[:known]
    assert len(set(shipped)) == len(shipped)

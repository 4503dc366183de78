import re
import runpy
from pathlib import Path

import pytest

WORDS = runpy.run_path(str(Path(__file__).parents[2] / "docs/words.py"))
Word, find_words = WORDS["Word"], WORDS["find_words"]


def test_a_word_is_found_with_its_line_and_the_term():
    text = "import a\n\nHouse_task = 1\nit was worked\n    off twice\n"
    assert list(find_words(text)) == [(4, "worked off", "processed"), (3, "House_task", "vouch_task")]


@pytest.mark.parametrize("text", ["It worked. Off it went.", "there is room", "roomservice", "a handout"])
def test_ordinary_english_is_left_alone(text):
    assert list(find_words(text)) == []


def test_a_stored_name_may_stand():
    word = Word(r"\blooks?\b", "test", r"runs/<run>/looks|\"look\"")
    assert [line for line, _, _ in find_words('"look"\nruns/<run>/looks\nlook\n"a look"', (word,))] == [3, 4]


@pytest.mark.parametrize("word", WORDS["WORDS"], ids=lambda word: word.term)
def test_every_pattern_is_one_and_matches_no_term(word):
    assert not re.search(word.pattern, word.term, re.IGNORECASE)
    assert not re.fullmatch(word.pattern, "", re.IGNORECASE)

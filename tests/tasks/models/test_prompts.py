"""Captions of classes, and the scores of their tokens."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from vouch_labels.schemas.campaign import ClassConfig, DetectorConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.models.prompts import Caption, TokenScores, pack_captions
from vouch_labels.tasks.models.tokens import check_apart, check_classes, plain_text, reader


def test_each_phrase_has_its_best_token() -> None:
    # start, a, b, separator, c, separator, end; the first and last phrase are the same text
    caption = Caption((2, 7, 8, 1, 9, 1, 3), (0, 1, 4), ((1, 3), (4, 5), (1, 3)))
    logits = torch.full((1, 2, 10), 9.0)  # special tokens and what lies beyond must not count
    logits[0, 0, [1, 2, 4]] = torch.tensor([-1.0, 2.0, 0.0])
    logits[0, 1, [1, 2, 4]] = torch.tensor([0.5, torch.nan, -torch.inf])
    scores = TokenScores(caption, "cpu")(logits)
    assert scores.shape == (1, 2, 3)
    torch.testing.assert_close(scores[0, 0], torch.tensor([2.0, 0.0, 2.0]).sigmoid())
    assert scores[0, 1].isnan().tolist() == [True, False, True]
    assert scores[0, 1, 1] == 0


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(tiny_tokenizer))


def tokens_of(caption: Caption, tokenizer: Any) -> dict[int, list[str]]:
    return {
        phrase: tokenizer.convert_ids_to_tokens(list(caption.input_ids[start:stop]))
        for phrase, (start, stop) in zip(caption.phrases, caption.spans, strict=True)
    }


def test_prefixes_repeats_and_several_words_keep_their_own_tokens(tokenizer: Any) -> None:
    phrases = ["fire", "fire hydrant", "hydrant", "hot dog", "dog", "the red truck"]
    [caption] = pack_captions(phrases, tokenizer, 256)
    assert list(tokens_of(caption, tokenizer).values()) == [phrase.split() for phrase in phrases]
    text = " . ".join(phrases) + " ."
    assert list(caption.input_ids) == tokenizer(text)["input_ids"]


def test_unknown_words_are_spelt_and_stay_whole(tokenizer: Any) -> None:
    [caption] = pack_captions(["fire", "xylophone"], tokenizer, 256)
    pieces = tokens_of(caption, tokenizer)[1]
    assert "".join(piece.removeprefix("##") for piece in pieces) == "xylophone"


def test_equal_phrases_share_their_tokens(tokenizer: Any) -> None:
    [caption] = pack_captions(["Dog", "cat", " dog", "dog."], tokenizer, 256)
    assert caption.phrases == (0, 1, 2, 3)
    assert caption.spans[0] == caption.spans[2] == caption.spans[3] == (1, 2)
    assert caption.spans[1] == (3, 4)
    assert len(caption.input_ids) == 6


@pytest.mark.parametrize(
    ("phrase", "asked"),
    [
        ("St. Bernard", "st bernard"),
        ("what? a  dog", "what a dog"),
        ("[SEP] dog", "sep dog"),
        ("7.5 kg", "7 5 kg"),
        ("Traffic\tLight\n", "traffic light"),
    ],
)
def test_separators_count_as_spaces(phrase: str, asked: str) -> None:
    assert plain_text(phrase) == asked


def test_too_long_a_phrase_is_named(tokenizer: Any) -> None:
    phrase = "dog " * 20
    with pytest.raises(UserError, match=r"has 20 tokens and the text window holds 13; shorten it") as raised:
        pack_captions(["cat", phrase], tokenizer, 16)
    assert "dog dog" in str(raised.value)
    assert len(str(raised.value)) < 200
    assert len(pack_captions(["dog " * 13], tokenizer, 16)) == 1


@pytest.mark.parametrize("phrase", ["...", "?", "[.]", "犬", "\u200d"])
def test_what_says_nothing_is_refused(tokenizer: Any, phrase: str) -> None:
    with pytest.raises(UserError, match="has no token that the text encoder knows"):
        pack_captions([phrase], tokenizer, 256)


def test_no_phrases_no_captions(tokenizer: Any) -> None:
    assert pack_captions([], tokenizer, 256) == []


def test_many_phrases_are_split_in_order(tokenizer: Any) -> None:
    phrases = [f"{colour} car {number}" for number in range(100) for colour in ("red", "green", "blue")]
    captions = pack_captions(phrases, tokenizer, 256)
    assert len(captions) > 1
    assert [index for caption in captions for index in caption.phrases] == list(range(300))
    assert all(len(caption.input_ids) <= 256 for caption in captions)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    phrases=st.lists(st.text(st.characters(codec="ascii"), min_size=1, max_size=12), max_size=30),
    window=st.integers(20, 80),
)
def test_every_phrase_is_asked_once_with_its_own_tokens(tokenizer: Any, phrases: list[str], window: int) -> None:
    phrases = [phrase for phrase in phrases if tokenizer.tokenize(plain_text(phrase))]
    captions = pack_captions(phrases, tokenizer, window)
    seen: list[int] = []
    for caption in captions:
        assert len(caption.input_ids) <= window
        assert list(caption.phrases) == sorted(caption.phrases)
        for index, (start, stop) in zip(caption.phrases, caption.spans, strict=True):
            expected = tokenizer(plain_text(phrases[index]), add_special_tokens=False)["input_ids"]
            assert list(caption.input_ids[start:stop]) == expected
            assert caption.input_ids[stop] == tokenizer.convert_tokens_to_ids(".")
        seen += caption.phrases
    assert sorted(seen) == list(range(len(phrases)))


def classes(*names: str | dict[str, object]) -> list[ClassConfig]:
    return [ClassConfig.model_validate(name) for name in names]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("car", "car."),
        ("bird", "BIRD?"),
        ("\u00d6", "O"),
        ("caf\u00e9", "cafe"),
        ("St. Bernard", "st bernard"),
        ("\u732b\U0001f98a", "\u72ac\U0001f98a"),
        ("red \U0001f98a", "red \U0001f436"),
    ],
)
def test_classes_that_the_detector_cannot_tell_apart_are_refused_by_name(one, other):
    given = classes("dog", one, {"name": "other", "prompts": ["horse", other]})
    with pytest.raises(UserError) as caught:
        check_classes(given, DetectorConfig())
    message = str(caught.value)
    assert f"classes {one!r} and 'other' are one to the detector" in message
    assert f"reads {one!r} and {other!r} both as" in message
    assert "give one of them other prompts" in message
    assert "\n" not in message


def test_classes_that_it_can_tell_apart_pass():
    check_classes(classes("car", "red car", "carpet", {"name": "dog", "prompts": ["dog", "Dog."]}), DetectorConfig())


def test_a_negative_that_reads_as_a_prompt_of_its_class_is_refused():
    given = classes({"name": "bird", "prompts": ["bird"], "negatives": ["Bird?"]})
    with pytest.raises(UserError, match="prompt 'bird' and the negative 'Bird\\?' both as"):
        check_classes(given, DetectorConfig())


def test_a_negative_may_be_the_prompt_of_another_class():
    check_classes(classes({"name": "dog", "negatives": ["wolf"]}, "wolf"), DetectorConfig())


def test_a_tokenizer_that_is_not_here_is_left_to_the_backend(tmp_path: Path):
    given = classes("car", "car.")
    check_classes(given, DetectorConfig(backend="transformers", checkpoint=str(tmp_path)))
    check_classes(given, DetectorConfig(backend="transformers", checkpoint="hf://owner/repo"))
    check_classes(given, DetectorConfig(backend="fake"))
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("no json")
    check_classes(given, DetectorConfig(text_encoder=str(tmp_path / "tokenizer")))


@pytest.mark.parametrize(("kind", "refused"), [("grounding-dino", True), ("owlv2", False)])
def test_a_saved_model_is_asked_in_the_form_of_its_family(tmp_path: Path, starter_tokenizer: Path, kind, refused):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    (tmp_path / "vocab.txt").write_bytes((starter_tokenizer / "vocab.txt").read_bytes())
    config = DetectorConfig(backend="transformers", checkpoint=str(tmp_path))
    # OWL reads the full stop, Grounding DINO separates phrases by it.
    given = classes("red", "red.")
    if refused:
        with pytest.raises(UserError, match="are one to the detector"):
            check_classes(given, config)
    else:
        check_classes(given, config)


def test_tokens_decide_and_not_the_text():
    check_apart(classes("a", "b"), lambda text: (text,))
    with pytest.raises(UserError, match="classes 'a' and 'b' are one"):
        check_apart(classes("a", "b"), lambda text: ("[UNK]",))


@pytest.fixture(scope="module")
def starter_tokenizer() -> Path:
    from vouch_labels.tasks.models.checkpoints import resolve, tokenizer_folder

    return tokenizer_folder(None, resolve(DetectorConfig(), "detector"))


@drawn(text=st.text(max_size=30))
def test_the_tokenizer_alone_reads_as_transformers_does(starter_tokenizer: Path, text: str):
    tokens = reader(starter_tokenizer, plain_text)
    assert tokens is not None
    assert tokens(text) == tuple(loaded(starter_tokenizer).tokenize(plain_text(text)))


@cache
def loaded(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))

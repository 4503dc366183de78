import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from vouch_labels.schemas.campaign import ClassConfig, DetectorConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.models.tokens import check_apart, check_classes, plain_text, reader


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

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import UserError
from tasks.score.templates import fill, templates_of


def test_imagenet_templates_are_those_of_the_paper() -> None:
    """open_clip carries the same list, as functions."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    mine = [fill(template, "axolotl") for template in templates_of("imagenet")]
    assert len(mine) == len(set(mine)) == 80
    assert sorted(mine) == sorted(template("axolotl") for template in OPENAI_IMAGENET_TEMPLATES)


@pytest.mark.parametrize("preset", ["plain", "photo", "imagenet"])
def test_presets_can_be_filled(preset: str) -> None:
    assert all(template.count("{}") == 1 for template in templates_of(preset))


def test_plain_is_the_text_alone() -> None:
    assert [fill(template, "dog") for template in templates_of("plain")] == ["dog"]


def test_own_templates() -> None:
    assert templates_of(("a {} on a shelf", "{}!")) == ("a {} on a shelf", "{}!")


@pytest.mark.parametrize("choice", [(), ("a photo",), ("{} and {}",), "imagenet81", ("{}", "{0}")])
def test_what_cannot_be_filled_is_refused(choice: str | tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"models\.scorer\.templates"):
        templates_of(choice)


@given(st.text())
def test_braces_in_a_text_mean_nothing(text: str) -> None:
    assert fill("a {}.", text) == f"a {text}."

"""`vouch train` at its command line."""

import json
from typing import Any

import pytest

TINY = ("--size", "tiny", "--image-size", "96", "--batch", "2")


@pytest.fixture
def labelled(tmp_path: Any, make_images: Any, write_campaign: Any, make_campaign: Any, label: Any) -> Any:
    make_images(tmp_path / "images", 4)
    label(make_campaign())
    return write_campaign()


def test_trains_into_a_folder_beside_the_campaign(vouch: Any, labelled: Any, tmp_path: Any) -> None:
    answer = vouch("train", labelled, *TINY, "--steps", 2)
    assert answer.code == 0, answer.err
    assert "detector trained on run main" in answer.out
    assert "no figure of its quality" in answer.out
    assert "backend: trained, checkpoint: " in answer.out
    assert "training: 2 of 2 steps | loss " in answer.err
    assert (tmp_path / "models" / "main" / "model.safetensors").is_file()
    again = vouch("train", labelled, *TINY, "--steps", 2, "--json", "--out", tmp_path / "other")
    assert json.loads(again.out)["steps"] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--size", "tiny", "--start", "model"), "--size: --start says the size already"),
        (("--steps", "2", "--minutes", "1"), "--steps, --epochs, --minutes: give one of them"),
        (("--size", "dfine-xs"), "--size"),
        (("--image-size", "100"), "--image-size"),
        (("--batch", "0"), "--batch"),
        (("--start", "nowhere"), "--start: the trained backend finds no config.json in nowhere"),
        (("--size", "dfine-n", "--image-size", "64"), "--image-size: the model takes its 300 queries"),
    ],
)
def test_mistakes_are_one_line(vouch: Any, labelled: Any, options: tuple[str, ...], words: str) -> None:
    answer = vouch("train", labelled, *options)
    assert answer.code == 2
    assert words in answer.err
    assert answer.err.strip().splitlines()[-1].startswith("vouch: ")
    assert "Traceback" not in answer.err

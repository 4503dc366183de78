import json

from PIL import Image


def test_scenes_are_drawn_with_their_truth(vouch, tmp_path):
    answer = vouch("scenes", tmp_path / "out", "--count", 2, "--seed", 4, "--smallest", 64, "--largest", 80)
    assert answer.code == 0, answer.err
    truth = json.loads((tmp_path / "out" / "ground_truth.json").read_text())
    for image in truth["images"]:
        assert Image.open(tmp_path / "out" / image["file_name"]).size == (image["width"], image["height"])
    assert "2 images in" in answer.out


def test_another_style(vouch, tmp_path):
    small = ("--count", 1, "--smallest", 64, "--largest", 64)
    assert vouch("scenes", tmp_path / "out", *small, "--style", "twitter").code == 0
    assert json.loads((tmp_path / "out" / "ground_truth.json").read_text())["info"]["style"] == "twitter"
    answer = vouch("scenes", tmp_path / "other", *small, "--style", "oil")
    assert answer.code == 2
    assert "unknown style 'oil': choose one of noto, twitter" in answer.err


def test_mistakes(vouch, tmp_path):
    assert vouch("scenes", tmp_path / "out", "--split", "nothing").code == 2
    assert vouch("scenes", tmp_path / "out", "--count", "0").code == 2

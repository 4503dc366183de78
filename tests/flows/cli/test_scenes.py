import json

from PIL import Image


def test_scenes_are_drawn_with_their_truth(vouch, tmp_path):
    answer = vouch("scenes", tmp_path / "out", "--count", 2, "--seed", 4, "--smallest", 64, "--largest", 80)
    assert answer.code == 0, answer.err
    truth = json.loads((tmp_path / "out" / "ground_truth.json").read_text())
    for image in truth["images"]:
        assert Image.open(tmp_path / "out" / image["file_name"]).size == (image["width"], image["height"])
    assert "2 images in" in answer.out


def test_mistakes(vouch, tmp_path):
    assert vouch("scenes", tmp_path / "out", "--split", "nothing").code == 2
    assert vouch("scenes", tmp_path / "out", "--count", "0").code == 2

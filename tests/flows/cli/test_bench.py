"""`vouch bench` at its command line."""

import json


def test_a_campaign_is_measured_for_people_and_for_machines(vouch, tmp_path, make_images, write_campaign):
    make_images(tmp_path / "images", 6)
    done = vouch("bench", write_campaign(), "--count", "5")
    assert done.code == 0
    assert "5 images of" in done.out
    assert "images/s from the file to the written labels" in done.out
    assert "bottleneck: " in done.out.splitlines()[-1]
    done = vouch("bench", write_campaign(), "--images", str(tmp_path / "images"), "--json")
    report = json.loads(done.out)
    assert report["images"] == 6
    assert report["source"] == str(tmp_path / "images")


def test_a_folder_that_is_none_is_refused(vouch, tmp_path):
    done = vouch("bench", "--images", str(tmp_path / "gone"))
    assert done.code == 2
    assert "is no folder" in done.err

"""`vouch report`."""

import json


def test_a_page_and_its_figures(tmp_path, vouch, make_images, make_campaign, write_campaign, label):
    make_images(tmp_path / "images", 4)
    campaign = write_campaign()
    label(make_campaign())
    out = tmp_path / "page.html"
    answer = vouch("report", campaign, "--out", out, "--plain")
    assert answer.code == 0, answer.err
    assert str(out) in answer.out
    assert "no precision is promised" in answer.out
    assert out.read_text().startswith("<!DOCTYPE html>")
    out.unlink()
    figures = json.loads(vouch("report", campaign, "--json", "--plain").out)
    assert figures["policy"]["standing"] == "user_thresholds"
    assert figures["number"] == 1  # nothing has changed since
    assert not out.exists()


def test_before_the_first_run(vouch, write_campaign):
    answer = vouch("report", write_campaign())
    assert answer.code == 2
    assert "vouch run" in answer.err

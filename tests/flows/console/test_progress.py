import io

import pytest
from rich.console import Console

from vouch_labels.flows.console.progress import RunProgress
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.shard.events import Exporting, Listing, Loading, Planned, Progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_plain_lines(clock):
    out = io.StringIO()
    with RunProgress(Console(file=out, width=200), plain=True) as progress:
        for event in (Loading("detector"), Listing(1000), Listing(2500), Planned(2500, 500, 2)):
            progress(event)
        for _ in range(3):
            clock[0] += 6
            progress(Progress(done=99, failed=1, accepted=20, review=5))
        progress(Exporting(1, "annotations"))
        clock[0] += 11
        progress(Exporting(900, "annotations"))
    assert out.getvalue().splitlines() == [
        "loading detector",
        "listing the source: 1,000 keys",
        "listing the source: 2,500 keys",
        "planned: 2,000 images to work through, 500 done before",
        "labelling: 600 of 2,500 images | 20 accepted, 5 review, 1 failed",
        "labelling: 800 of 2,500 images | 16.7 images/s, 1 min 42 s left | 60 accepted, 15 review, 3 failed",
        "exporting annotations",
        "exporting annotations: 900 images",
    ]


def test_the_last_line_of_a_phase_says_how_far_it_came(clock):
    out = io.StringIO()
    with RunProgress(Console(file=out, width=200), plain=True) as progress:
        progress(Planned(27, 0, 1))
        progress(Progress(26, 0, 20, 6))
        progress(Progress(0, 1, 0, 0))
        progress(Exporting(1, "annotations"))
    assert out.getvalue().splitlines() == [
        "planned: 27 images to work through, 0 done before",
        "labelling: 26 of 27 images | 20 accepted, 6 review, 0 failed",
        "labelling: 27 of 27 images | 20 accepted, 6 review, 1 failed",
        "exporting annotations",
        "exporting annotations: 1 image",
    ]


def test_a_refusal_has_no_line_before_it(clock):
    out = io.StringIO()
    with pytest.raises(UserError), RunProgress(Console(file=out, width=200), plain=True):
        raise UserError("no such folder")
    assert out.getvalue() == ""


def test_a_listing_that_has_only_begun_names_no_number(clock):
    out = io.StringIO()
    with RunProgress(Console(file=out, width=200), plain=True) as progress:
        progress(Listing(0))
        clock[0] += 11
        progress(Listing(40))
    assert out.getvalue().splitlines() == ["listing the source", "listing the source: 40 keys"]


def test_a_shard_that_is_tried_again_takes_back_what_it_said(clock):
    out = io.StringIO()
    with RunProgress(Console(file=out, width=200), plain=True) as progress:
        progress(Planned(10, 0, 1))
        progress(Progress(5, 1, 3, 2))
        clock[0] += 20
        progress(Progress(-5, -1, -3, -2))
    assert out.getvalue().splitlines()[-1] == "labelling: 0 of 10 images | 0 accepted, 0 review, 0 failed"


def test_live_line_on_a_terminal_is_drawn_and_removed(clock):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160, legacy_windows=False)
    with RunProgress(console, plain=False) as progress:
        progress(Planned(100, 0, 1))
        progress(Progress(40, 2, 7, 3))
    text = out.getvalue()
    assert "42 of 100 images" in text
    assert "7 accepted, 3 review, 2 failed" in text
    assert text.endswith("\x1b[2K")


def test_without_a_terminal_lines_are_plain_unasked(clock):
    out = io.StringIO()
    with RunProgress(Console(file=out), plain=False) as progress:
        progress(Listing(3))
    assert out.getvalue() == "listing the source: 3 keys\n"


def test_warnings_of_the_steps_reach_the_terminal_and_errors_do_not():
    import logging

    file = io.StringIO()
    with RunProgress(Console(file=file, width=200), plain=True):
        logging.getLogger("vouch_labels.tasks.models.batching").warning("out of device memory: batches of %d\x1b[2J", 2)
        logging.getLogger("vouch_labels.tasks.shard.steps").error("detect failed for 1.jpg")
    logging.getLogger("vouch_labels.tasks.models.batching").warning("too late")
    assert "out of device memory: batches of 2" in file.getvalue()
    assert "\x1b" not in file.getvalue()
    assert "1.jpg" not in file.getvalue()
    assert "too late" not in file.getvalue()

"""What `vouch review` prints."""

import io

import pytest
from rich.console import Console

from flows.console.review import KEYS, print_pulled, print_queue
from schemas.queue import PullOutcome, QueueStatus


def pulled(**counts: int) -> str:
    values = dict.fromkeys(("verdicts", "answers", "known", "earlier", "undone", "late"), 0) | counts
    out = io.StringIO()
    print_pulled(Console(file=out, width=140), PullOutcome(**values, late_items=(), file=""))
    return out.getvalue()


def test_a_pull_without_news_says_what_is_there_already():
    assert pulled(earlier=12) == "nothing new: 12 answers are in the workspace already\n"
    assert pulled(earlier=1) == "nothing new: 1 answer is in the workspace already\n"
    assert pulled() == "nothing new: there is no answer yet\n"
    assert pulled(answers=2, verdicts=3, earlier=5) == "3 new verdicts of 2 answers are in the workspace\n"


@pytest.mark.parametrize(("own", "says"), [(False, "the usual pace"), (True, "the reviewers' own pace")])
def test_the_time_left_names_its_pace(own, says):
    status = QueueStatus(
        queue="0123456789ab", run="main", purposes={}, reviewers={}, twice=0, agreement=None, edited=2, edit_iou=0.815,
        minutes_left=3,
        own_pace=own, unpulled=0, late=0,
    )  # fmt: skip
    out = io.StringIO()
    print_queue(Console(file=out, width=140), status)
    assert "2 boxes were corrected, with a median IoU of 0.81 to the new ones" in out.getvalue()
    assert out.getvalue().splitlines()[-1] == f"about 3 min 0 s left at {says}"


def test_every_key_is_listed():
    listed = " ".join(KEYS)
    for key in ("T", "Enter", "1", "B", "N", "M", "D", "G", "S", "Z"):
        assert f"Alt+{key} " in listed

"""What `vouch review` prints.

What `vouch plan-reviews` prints.
"""

import io
from pathlib import Path

import pytest
from rich.console import Console

from vouch_labels.flows.console.review import KEYS, print_planned, print_pulled, print_queue
from vouch_labels.schemas.queue import PullOutcome, QueueStatus
from vouch_labels.schemas.reviews import Planned, ReviewPlan


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


@pytest.fixture
def printed():
    """The lines for a plan of 100 audit tasks of which so many are open."""

    def show(still_open: int, simulated: int = 0) -> str:
        plan = ReviewPlan(
            number=3, run="main", created="2026-01-01T00:00:00+00:00", inputs={}, precision=0.95, confidence=0.9,
            gate="delivered", seed=0, fit_share=0.3, counts={"audit": 100}, seconds=1.6 * still_open, tasks_sha256="",
        )  # fmt: skip
        planned = Planned(
            stage="audit", plan=plan, open=still_open, simulated=simulated, words=(), next=("vouch run CAMPAIGN",)
        )
        text = io.StringIO()
        print_planned(Console(file=text, width=100), planned, None, Path("a.yaml"))
        return text.getvalue()

    return show


def test_open_tasks_are_counted_with_their_time(printed) -> None:
    assert "\n100 to be answered, about 2 min 40 s at the usual pace\n" in printed(100)


@pytest.mark.parametrize(
    ("simulated", "words"),
    [
        (0, "60 are answered already"),
        (60, "60 were answered by a simulated reviewer already"),
        (20, "60 are answered already, 20 of them by a simulated reviewer"),
    ],
)
def test_what_has_an_answer_is_said_beside_what_is_open(printed, simulated, words) -> None:
    assert f"\n40 of 100 to be answered, about 1 min 4 s at the usual pace; {words}\n" in printed(40, simulated)


def test_a_plan_that_is_answered_already_says_so(printed) -> None:
    out = printed(0)
    assert "0 to be answered: earlier verdicts answer every task of this plan already" in out
    assert "at the usual pace" not in out
    assert "next 1: vouch run a.yaml" in out

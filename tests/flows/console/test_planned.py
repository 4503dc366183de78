"""What `vouch plan-reviews` prints."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from flows.console.planned import print_planned
from schemas.reviews import Planned, ReviewPlan


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

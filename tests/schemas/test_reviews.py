"""What the results of planning and reviewing say."""

import pytest

from vouch_labels.schemas.queue import PullOutcome, QueueStatus
from vouch_labels.schemas.reviews import Planned, ReviewPlan


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({"earlier": 12}, "nothing new: 12 answers are in the workspace already"),
        ({"earlier": 1}, "nothing new: 1 answer is in the workspace already"),
        ({}, "nothing new: there is no answer yet"),
        ({"answers": 2, "verdicts": 3, "earlier": 5}, "3 new verdicts of 2 answers came into the workspace"),
    ],
)
def test_a_pull_without_news_says_what_is_there_already(lines, counts, line):
    values = dict.fromkeys(("verdicts", "answers", "known", "earlier", "undone", "late"), 0) | counts
    assert lines(PullOutcome(**values, late_items=(), file="")) == [line]


@pytest.mark.parametrize(("own", "says"), [(False, "the usual pace"), (True, "the reviewers' own pace")])
def test_the_time_left_names_its_pace(lines, own, says):
    status = QueueStatus(
        queue="0123456789ab", run="main", purposes={}, reviewers={}, twice=0, agreement=None, hinted=1, edited=2,
        edit_iou=0.815, minutes_left=3, own_pace=own, unpulled=0, late=0,
    )  # fmt: skip
    assert lines(status)[1:] == [
        "before 1 answer the reviewer had asked what the models say",
        "2 boxes were corrected, with a median IoU of 0.81 of old and new",
        f"about 3 min 0 s left at {says}",
    ]


@pytest.fixture
def planned():
    """A plan of 100 audit tasks of which so many are open."""

    def make(still_open: int, simulated: int = 0) -> Planned:
        plan = ReviewPlan(
            number=3, run="main", created="2026-01-01T00:00:00+00:00", inputs={}, precision=0.95, confidence=0.9,
            gate="delivered", seed=0, fit_share=0.3, counts={"audit": 100}, seconds=1.6 * still_open, tasks_sha256="",
        )  # fmt: skip
        return Planned(
            stage="audit", plan=plan, open=still_open, simulated=simulated, words=(), next=("vouch run CAMPAIGN",)
        )

    return make


def test_open_tasks_are_counted_with_their_time(planned):
    assert planned(100).to_answer() == "100 to be answered, about 2 min 40 s at the usual pace"


@pytest.mark.parametrize(
    ("simulated", "text"),
    [
        (0, "60 were answered already"),
        (60, "60 were answered by a simulated reviewer already"),
        (20, "60 were answered already, 20 of them by a simulated reviewer"),
    ],
)
def test_what_has_an_answer_is_said_beside_what_is_open(planned, simulated, text):
    said = planned(40, simulated).to_answer()
    assert said == f"40 of 100 to be answered, about 1 min 4 s at the usual pace; {text}"


def test_a_plan_that_is_answered_already_says_so(lines, planned):
    assert lines(planned(0))[-2:] == [
        "0 to be answered: earlier verdicts answer every task of this plan already",
        "next 1: vouch run CAMPAIGN",
    ]

"""Plans the next reviews: decides which stage is due, draws its labels within a budget of time, and writes the plan."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, get_args

import numpy as np
import pyarrow as pa

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import TASKS, Planned, ReviewPlan, Stage
from vouch_labels.schemas.text import plural
from vouch_labels.tasks.certify.active import check_classes_labelled
from vouch_labels.tasks.certify.data import BLOCK, RunReviews, read_run_reviews
from vouch_labels.tasks.certify.draw import (
    Draw,
    add_honeypots,
    ask_about_images,
    draw_certification,
    draw_first,
    draw_queue,
)
from vouch_labels.tasks.certify.questions import class_by_class, numbered, without_labels_of
from vouch_labels.tasks.certify.rounds import next_stage, record_test
from vouch_labels.tasks.certify.top_up import draw_audit
from vouch_labels.tasks.reviews.log import CertificationTest
from vouch_labels.tasks.reviews.open_tasks import open_tasks
from vouch_labels.tasks.reviews.plans import VERIFY_S, write_plan
from vouch_labels.tasks.reviews.resolve import missed_and_checked
from vouch_labels.tasks.statistics.sampling import generator
from vouch_labels.tasks.statistics.threshold_tests import delta_of_test

DEFAULT_MINUTES: Final = 30.0
ORDER: Final = 99
"""Purpose of the generator that mixes tasks."""


@dataclass(frozen=True)
class ReviewRequest:
    """What the user asks for."""

    minutes: float = DEFAULT_MINUTES
    """Reviewers' time, everything included."""
    stage: Stage | None = None
    """None: what is next."""
    honeypots: int = 0
    """Known-wrong labels to mix in."""
    images: int = 0
    """Images to be searched for every object."""
    misses: int = 0
    """Pairs of image and class that CLIP sees and no box shows."""
    fresh: bool = False
    """Draw certification labels again, with groups declared again, though an earlier sample could go on."""


def plan_reviews(campaign: Campaign, request: ReviewRequest = ReviewRequest()) -> Planned:
    """Draw what is next, and write it as a review plan.

    Stages: labels to fit to (first); a certification sample, or more of it (certify); with an active policy a blind
    audit and low-confidence labels (audit, queue). A sample that is still unanswered is answered before another is
    drawn.

    Raises:
        UserError: There is nothing to draw, the budget is too small, or earlier tasks come first; the message says
            what to do.
        StoreError: A table, plan or file of verdicts is damaged.
    """
    _check(request)
    reviews = read_run_reviews(campaign)
    check_classes_labelled(campaign, reviews.current)
    images = missed_and_checked(reviews.verdicts)
    earlier = [tasks for plan, tasks in reviews.plans if plan.inputs == reviews.current.inputs]
    accepts = reviews.labels.accepts
    waiting = open_tasks(pa.concat_tables([TASKS.empty_table(), *earlier]), reviews.answers, images, accepts)
    stage = request.stage or next_stage(reviews, request.fresh)
    seconds = request.minutes * 60
    about_images = ask_about_images(reviews, images, request.images, request.misses)
    seconds -= about_images.seconds + request.honeypots * VERIFY_S
    draw = _draw(reviews, stage, request, seconds)
    honeypots, of_honeypots = add_honeypots(reviews, draw, request.honeypots)
    rng = generator(reviews.seed, ORDER, len(reviews.plans))
    about_labels = class_by_class([*draw.tables, honeypots], rng, BLOCK if draw.any_time_delta else None)
    # Images to be searched bring their unreviewed labels along, of which some may be drawn already.
    tasks = numbered(pa.concat_tables([about_labels, without_labels_of(about_images.tasks, about_labels)]))
    if not tasks.num_rows:
        raise UserError(_nothing(draw, waiting.num_rows))
    guarantee = reviews.guarantee
    plan = ReviewPlan(
        number=1,
        run=reviews.run,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        inputs=reviews.current.inputs,
        precision=guarantee.precision,
        confidence=guarantee.confidence,
        gate=guarantee.gate,
        seed=reviews.seed,
        calibrator=draw.calibrator,
        groups=draw.groups,
        population=draw.population,
        round=draw.round,
        any_time_delta=draw.any_time_delta,
        missed=guarantee.missed,
        audit=draw.audit,
        image_strata=about_images.strata,
        counts={},
        seconds=0,
        tasks_sha256="",
    )
    still_open = open_tasks(tasks, reviews.answers, images, accepts).num_rows
    tested = _take(reviews, draw.tests)
    written = write_plan(reviews.workspace, reviews.run, plan, tasks)
    return Planned(
        stage=stage,
        plan=written,
        open=still_open,
        simulated=int(reviews.answers.simulated_of(tasks["label_id"]).sum()),
        earlier_open=waiting.num_rows,
        words=(*draw.notes, *tested, *of_honeypots, *about_images.notes),
        next=_next(stage, still_open),
    )


def _check(request: ReviewRequest) -> None:
    if not (np.isfinite(request.minutes) and request.minutes > 0):
        raise UserError("--minutes must be more than 0")
    if min(request.honeypots, request.images, request.misses) < 0:
        raise UserError("--honeypots, --images and --misses cannot be negative")
    if request.stage not in (None, *get_args(Stage)):
        raise UserError(f"{request.stage!r} is no stage; give {', '.join(get_args(Stage))}, or none for what is next")


def _draw(reviews: RunReviews, stage: Stage, request: ReviewRequest, seconds: float) -> Draw:
    if seconds < VERIFY_S:
        raise UserError(
            f"{request.minutes:g} minutes are not enough for the honeypots, images and misses asked for; "
            "raise --minutes, or ask for fewer"
        )
    if stage == "first":
        return draw_first(reviews, seconds)
    if stage == "certify":
        return draw_certification(reviews, seconds, request.fresh, request.honeypots > 0)
    if stage == "audit":
        return draw_audit(reviews, seconds, alone=True)
    if request.stage == "queue":
        return draw_queue(reviews, seconds)
    audit = draw_audit(reviews, seconds, alone=False)
    queue = draw_queue(reviews, seconds - audit.seconds)
    return audit.beside(queue) if audit.tables else queue


def _take(reviews: RunReviews, drawing: Sequence[CertificationTest]) -> list[str]:
    """Record the tests that drawing amounts to, and report them; if drawing fails then, none is recorded twice."""
    said = []
    for test in drawing:
        taken, _ = record_test(reviews, test)
        left = delta_of_test(1 - reviews.guarantee.confidence, taken.look + 1)
        of = "them" if test.run == reviews.run else f"those of run {test.run}"
        said.append(
            f"to draw on after answers is a test of {of}, as certifying is: test {taken.look}; the next is tested at "
            f"{left:.4g}"
        )
    return said


def _nothing(draw: Draw, waiting: int) -> str:
    if not waiting:
        return draw.nothing
    tasks = plural(waiting, "task of an earlier plan still waits", "tasks of earlier plans still wait")
    return f"{draw.nothing}; {tasks} for an answer"


def _next(stage: Stage, still_open: int) -> tuple[str, ...]:
    after = {
        "first": "vouch plan-reviews CAMPAIGN",
        "certify": "vouch certify CAMPAIGN",
        "audit": "vouch run CAMPAIGN",
        "queue": "vouch run CAMPAIGN",
    }
    return ("vouch verdicts CAMPAIGN FILE", after[stage]) if still_open else (after[stage],)

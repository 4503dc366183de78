"""Takes a handful of images through the steps that they still need."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from schemas.errors import VouchError
from schemas.records import Failed, Step
from tasks.models.batching import is_out_of_memory
from tasks.shard.pipeline import Pipeline
from tasks.shard.work import Work

logger = logging.getLogger(__name__)


def steps_of(pipeline: Pipeline, class_names: list[str]) -> list[Callable[[Sequence[Work]], None]]:
    """List what is done to a handful of images, in place: detect; segment; score and look for further classes.

    Each function has models of its own, so they may work on different handfuls at the same time. An image that a step
    gives up is marked failed and leaves the line; what has failed already is passed over.

    Rows that a work keeps from an earlier marker are not computed again. An unforeseen error, memory that does not
    suffice included, costs only the image that causes it: the handful is halved until it stands alone. VouchError
    says that something is wrong beyond these images.

    Args:
        pipeline: The loaded steps.
        class_names: Names of the classes, in their order.
    """
    return [
        partial(_detect, pipeline=pipeline, class_names=class_names),
        partial(_segment, pipeline=pipeline),
        partial(_score, pipeline=pipeline),
    ]


def _detect(works: Sequence[Work], pipeline: Pipeline, class_names: list[str]) -> None:
    _step("detect", works, lambda group: pipeline.detect([work.pixels for work in group]), "detections")
    for work in works:
        if work.failed is None:
            work.take_boxes(class_names)


def _segment(works: Sequence[Work], pipeline: Pipeline) -> None:
    _step(
        "segment", works, lambda group: pipeline.segment([w.pixels for w in group], [w.boxes for w in group]), "masks"
    )


def _score(works: Sequence[Work], pipeline: Pipeline) -> None:
    _step(
        "score",
        works,
        lambda group: pipeline.score(
            [work.pixels for work in group], [work.boxes for work in group], [work.class_indices for work in group]
        ),
        "scores",
    )
    _step(
        "presence",
        works,
        lambda group: pipeline.presence([work.pixels for work in group], [work.class_indices for work in group]),
        "presence",
    )


def _step(step: Step, works: Sequence[Work], run: Callable[[Sequence[Work]], Sequence[Any]], result: str) -> None:
    due = [work for work in works if work.failed is None and step not in work.kept]
    for work, answer in zip(due, _halving(step, due, run), strict=True):
        if isinstance(answer, Failed):
            work.failed = answer
        else:
            setattr(work, result, answer)


def _halving(step: Step, works: Sequence[Work], run: Callable[[Sequence[Work]], Sequence[Any]]) -> list[Any]:
    if not works:
        return []
    try:
        return list(run(works))
    except VouchError:
        raise
    except Exception as error:
        if len(works) == 1:
            return [_failure(step, works[0], error)]
        logger.debug("%s failed for %d images; trying them in halves", step, len(works))
    half = len(works) // 2
    return _halving(step, works[:half], run) + _halving(step, works[half:], run)


def _failure(step: Step, work: Work, error: Exception) -> Failed:
    if is_out_of_memory(error):
        return Failed(step=step, reason="does not fit the device's memory, even alone")
    logger.error("%s failed for %s", step, work.ref.key, exc_info=error)
    message = " ".join(str(error).split())
    return Failed(step=step, reason=f"unforeseen {type(error).__name__}: {message[:200]}")

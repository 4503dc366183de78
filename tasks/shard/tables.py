"""Turns worked images into the rows of every table."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TypeVar

import pyarrow as pa

from schemas.policy import Policy
from schemas.tables import IMAGES, STAGES
from tasks.detect.detections import Detections
from tasks.route.router import route
from tasks.shard.pipeline import Pipeline
from tasks.shard.work import Work

Result = TypeVar("Result")


def chunk_tables(works: Sequence[Work], pipeline: Pipeline, policy: Policy) -> dict[str, pa.Table]:
    """Lay out a handful of images.

    Args:
        works: Images after all steps, failed ones included, in plan order.
        pipeline: The steps, which know how their results become rows.
        policy: Decides over the labels.

    Returns:
        Stage -> its table; `detect`, `segment`, `score` and `route` have a row a label of the images that did not
        fail, in one order; `presence` a row for each further class that CLIP sees in one of these.
    """
    done = [work for work in works if work.failed is None]
    detect = _gather("detect", done, lambda group: pipeline.detect.table(map(_found, group)))
    ids = iter(detect["label_id"].to_pylist())
    labels = {id(work): [next(ids) for _ in range(len(work.boxes))] for work in done}
    segment = _gather(
        "segment", done, lambda group: pipeline.segment.table((labels[id(w)], w.boxes, _there(w.masks)) for w in group)
    )
    score = _gather("score", done, lambda group: pipeline.score.table((labels[id(w)], _there(w.scores)) for w in group))
    presence = _gather(
        "presence", done, lambda group: pipeline.presence.table((w.ref.key, _there(w.presence)) for w in group)
    )
    images = _images(works)
    return {
        "images": images,
        "detect": detect,
        "segment": segment,
        "score": score,
        "presence": presence,
        "route": route(images, detect, segment, score, policy),
    }


def join_tables(chunks: Sequence[dict[str, pa.Table]]) -> dict[str, pa.Table]:
    """Put the tables of consecutive handfuls together, stage by stage."""
    return {
        stage: pa.concat_tables([schema.empty_table(), *(chunk[stage] for chunk in chunks)])
        for stage, schema in STAGES.items()
    }


def _gather(stage: str, works: Sequence[Work], lay_out: Callable[[Iterable[Work]], pa.Table]) -> pa.Table:
    pieces = [STAGES[stage].empty_table()]
    for is_kept, group in groupby(works, key=lambda work: stage in work.kept):
        works_alike = list(group)
        pieces.extend([work.kept[stage] for work in works_alike] if is_kept else [lay_out(works_alike)])
    return pa.concat_tables(pieces)


def _found(work: Work) -> tuple[str, str, Detections]:
    return work.ref.key, _there(work.image).sha256, _there(work.detections)


def _there(result: Result | None) -> Result:
    if result is None:
        raise ValueError("a step has left an image out")
    return result


def _images(works: Sequence[Work]) -> pa.Table:
    rows = []
    for work in works:
        image, failed = work.image, work.failed
        height, width = image.pixels.shape[:2] if image else (None, None)
        rows.append(
            {
                "key": work.ref.key,
                "etag": work.ref.etag,
                "sha256": image.sha256 if image else None,
                "width": width,
                "height": height,
                "format": image.format if image else None,
                "mode": image.mode if image else None,
                "orientation": image.orientation if image else None,
                "outcome": "failed" if failed else "done",
                "step": failed.step if failed else None,
                "reason": failed.reason if failed else None,
                "labels": 0 if failed else len(work.boxes),
            }
        )
    return pa.Table.from_pylist(rows, schema=IMAGES)

"""Takes batches of images through the steps that they still need, and turns the results into rows of every table.

Steps run side by side in threads where the device gains by it, in order and bounded.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vouch_labels.schemas.errors import VouchError
from vouch_labels.schemas.policy import Policy
from vouch_labels.schemas.records import Failed, ImageRef, Step
from vouch_labels.schemas.tables import FOUND, IMAGES, MASKS, STAGES
from vouch_labels.tasks.arrow import boxes_of
from vouch_labels.tasks.decode import DecodedImage
from vouch_labels.tasks.detect import Ask, Detect, Detections, Given
from vouch_labels.tasks.models.batching import is_out_of_memory
from vouch_labels.tasks.models.registry import Floats, Masks, Pixels, RawDetections
from vouch_labels.tasks.models.runtime import WAIT_SECONDS, on_own_stream
from vouch_labels.tasks.policy import Coverage
from vouch_labels.tasks.presence import Present
from vouch_labels.tasks.route import route
from vouch_labels.tasks.score import Scores
from vouch_labels.tasks.shard.pipeline import Pipeline

logger = logging.getLogger(__name__)

FOUND_OF: Final = "found-"
"""How the name begins, in the tables of a batch or shard, of what the detector found; a key of `found_keys` follows."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class Work:
    """What is known of one image: results as they come, or what an earlier marker already holds."""

    ref: ImageRef
    image: DecodedImage | None = None
    failed: Failed | None = None
    kept: dict[str, pa.Table] = field(default_factory=dict)
    """Stage -> this image's rows of an earlier marker, which need no computing."""
    found: dict[str, RawDetections] = field(default_factory=dict)
    """Key of texts asked together -> candidates of the detector, kept from an earlier marker or as they come."""
    given: Given | None = None
    """Labels that were imported for it."""
    masked: pa.Table | None = None
    """Boxes and masks of an earlier marker, rows of DETECTIONS and MASKS side by side: a mask goes by its box alone."""
    detections: Detections | None = None
    masks: Masks | None = None
    scores: Scores | None = None
    presence: Present | None = None
    boxes: Floats = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    class_indices: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def pixels(self) -> Pixels:
        """The decoded image, which every step before the router has."""
        if self.image is None:
            raise ValueError(f"{self.ref.key} has no pixels")
        return self.image.pixels

    def take_boxes(self, class_names: list[str]) -> None:
        """Fill boxes and classes from the detections, or from rows that were kept."""
        if self.detections is not None:
            self.boxes, self.class_indices = self.detections.boxes, self.detections.class_indices
            return
        rows = self.kept["detect"]
        self.boxes = boxes_of(rows)
        places = {name: index for index, name in enumerate(class_names)}
        self.class_indices = np.array([places[name] for name in rows["class_name"].to_pylist()], np.int64)


@dataclass(slots=True)
class _Batch:
    works: Sequence[Work]
    tables: dict[str, pa.Table] = field(default_factory=dict)


def process_batches(
    batches: Iterable[Sequence[Work]],
    pipeline: Pipeline,
    policy: Policy,
    class_names: list[str],
    covered: Coverage | None = None,
) -> Iterator[dict[str, pa.Table]]:
    """Yield the tables of each batch, in order; policy and covered as in `tasks.route.route`.

    Batches are images with pixels or failed, in plan order. On a GPU they follow each other through four threads
    (detect, segment, score, lay out), so that the device has work while the host resizes, encodes and writes rows for
    another batch; as many are held at once as there are threads, and one more. On a CPU all is done in the caller's
    thread.

    Raises:
        VouchError: Something is wrong beyond the images.
    """
    in_turn, side_by_side = _stages(pipeline, policy, class_names, covered)
    for batch in staged(map(_Batch, batches), side_by_side, "stage"):
        for stage in in_turn:
            stage(batch)
        yield batch.tables


BatchStage = Callable[[_Batch], None]


def _stages(
    pipeline: Pipeline, policy: Policy, class_names: list[str], covered: Coverage | None
) -> tuple[list[BatchStage], list[BatchStage]]:
    """What is done in the caller's thread, and what in threads of their own."""
    steps = steps_of(pipeline, class_names)

    def lay_out(batch: _Batch) -> None:
        batch.tables = batch_tables(batch.works, pipeline, policy, covered)

    device = pipeline.stages_on
    if device is None:
        return [*map(_on_works, steps), lay_out], []
    return [], [*(on_own_stream(_on_works(step), device, index) for index, step in enumerate(steps)), lay_out]


def _on_works(step: Callable[[Sequence[Work]], None]) -> BatchStage:
    def stage(batch: _Batch) -> None:
        step(batch.works)

    return stage


def staged(items: Iterable[Item], stages: Sequence[Callable[[Item], None]], name: str) -> Iterator[Item]:
    """Yield every item after all stages have changed it, in the order given.

    While a stage works on one item, the stage before it works on the next; each has its own thread, of this name. At
    most one item a stage is under way, and one more waits. When the consumer stops early, what has not started is
    cancelled and the threads end.

    Raises:
        Exception: What a stage raised, when its item's turn comes; or what `items` raised.
    """
    window: deque[Future[Item]] = deque()
    pools = [ThreadPoolExecutor(1, thread_name_prefix=f"{name}-{index}") for index in range(len(stages))]
    try:
        for item in items:
            future: Future[Item] = Future()
            future.set_result(item)
            for pool, stage in zip(pools, stages, strict=True):
                future = pool.submit(partial(_after, future, stage))
            window.append(future)
            if len(window) > len(stages):
                yield _result(window.popleft())
        while window:
            yield _result(window.popleft())
    finally:
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in pools:
            pool.shutdown()


def _after(before: Future[Item], stage: Callable[[Item], None]) -> Item:
    item = before.result()
    stage(item)
    return item


def _result(future: Future[Item]) -> Item:
    while not future.done():
        wait([future], WAIT_SECONDS)
    return future.result()


def steps_of(pipeline: Pipeline, class_names: list[str]) -> list[Callable[[Sequence[Work]], None]]:
    """List what is done to a batch of images, in place: detect; segment; score and look for further classes.

    Each function has models of its own, so they may work on different batches at the same time. An image that a step
    gives up is marked failed and leaves the line; what has failed already is passed over.

    Rows that a work keeps from an earlier marker are not computed again. An unforeseen error, memory that does not
    suffice included, costs only the image that causes it: the batch is halved until it stands alone. VouchError
    says that something is wrong beyond these images.
    """
    return [
        partial(_detect, pipeline=pipeline, class_names=class_names),
        partial(_segment, pipeline=pipeline),
        partial(_score, pipeline=pipeline),
    ]


def _detect(works: Sequence[Work], pipeline: Pipeline, class_names: list[str]) -> None:
    detect, keys = pipeline.detect, pipeline.found_keys
    for key, ask in zip(keys, detect.asks, strict=True):
        due = [work for work in works if work.failed is None and "detect" not in work.kept and key not in work.found]
        look = partial(_look, detect=detect, ask=ask)
        for work, answer in zip(due, _halving("detect", due, look), strict=True):
            if isinstance(answer, Failed):
                work.failed = answer
            else:
                work.found[key] = answer
    _step(
        "detect",
        works,
        lambda group: [detect.decide([work.found[key] for key in keys], work.pixels, work.given) for work in group],
        "detections",
    )
    for work in works:
        if work.failed is None:
            work.take_boxes(class_names)


def _look(works: Sequence[Work], detect: Detect, ask: Ask) -> list[RawDetections]:
    return detect.look([work.pixels for work in works], ask)


def _segment(works: Sequence[Work], pipeline: Pipeline) -> None:
    for work in works:
        if work.failed is None and "segment" not in work.kept and (masks := _masks_of_boxes(work)) is not None:
            work.kept["segment"] = masks
    _step(
        "segment", works, lambda group: pipeline.segment([w.pixels for w in group], [w.boxes for w in group]), "masks"
    )


def _masks_of_boxes(work: Work) -> pa.Table | None:
    """Rows of MASKS for the boxes of a work, with their former ids, if an earlier marker masked each of them."""
    if work.masked is None:
        return None
    place = {tuple(box): row for row, box in enumerate(boxes_of(work.masked).tolist())}
    rows = [place.get(tuple(box)) for box in work.boxes.tolist()]
    if None in rows:
        return None
    return work.masked.select(MASKS.names).take(pa.array(rows, pa.int64()))


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


def batch_tables(
    works: Sequence[Work], pipeline: Pipeline, policy: Policy, covered: Coverage | None = None
) -> dict[str, pa.Table]:
    """Lay out a batch of images after all steps, failed ones included, in plan order.

    Returns:
        Stage -> its table; `detect`, `segment`, `score` and `route` have a row a label of the images that did not
        fail, in one order; `presence` a row for each further class that CLIP sees in one of these.
    """
    done = [work for work in works if work.failed is None]
    detect = _gather("detect", done, lambda group: pipeline.detect.table(map(_found, group)))
    ids = iter(detect["label_id"].to_pylist())
    labels = {id(work): [next(ids) for _ in range(len(work.boxes))] for work in done}
    for work in done:
        if "segment" in work.kept and "detect" not in work.kept:
            # The same box may be a label of another class now, whose id is another.
            work.kept["segment"] = work.kept["segment"].set_column(
                0, MASKS.field(0), pa.array(labels[id(work)], pa.string())
            )
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
        **{f"{FOUND_OF}{key}": _found_table(done, key) for key in pipeline.found_keys if _all_have(done, key)},
        "detect": detect,
        "segment": segment,
        "score": score,
        "presence": presence,
        "route": route(images, detect, segment, score, policy, covered),
    }


def join_tables(batches: Sequence[dict[str, pa.Table]]) -> dict[str, pa.Table]:
    """Put the tables of consecutive batches together, stage by stage."""
    joined = {
        stage: pa.concat_tables([schema.empty_table(), *(batch[stage] for batch in batches)])
        for stage, schema in STAGES.items()
    }
    found = {name for batch in batches for name in batch if name.startswith(FOUND_OF)}
    return joined | {
        name: pa.concat_tables([FOUND.empty_table(), *(batch[name] for batch in batches)])
        for name in sorted(found)
        if all(name in batch for batch in batches)
    }


def _all_have(works: Sequence[Work], key: str) -> bool:
    return all(key in work.found for work in works)


def _found_table(works: Sequence[Work], key: str) -> pa.Table:
    pieces = [FOUND.empty_table()]
    for work in works:
        raw = work.found[key]
        columns = [
            pa.array([work.ref.key] * len(raw.boxes), pa.string()),
            *(pa.array(raw.boxes[:, side], pa.float32()) for side in range(4)),
            pa.array(list(raw.scores), pa.list_(pa.float32())),
        ]
        pieces.append(pa.Table.from_arrays(columns, schema=FOUND))
    return pa.concat_tables(pieces)


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
                "outcome": ("skipped" if failed.skip else "failed") if failed else "done",
                "step": failed.step if failed else None,
                "reason": failed.reason if failed else None,
                "labels": 0 if failed else len(work.boxes),
            }
        )
    return pa.Table.from_pylist(rows, schema=IMAGES)

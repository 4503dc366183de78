"""Takes handfuls of images through all steps, side by side where the device gains by it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from schemas.policy import Policy
from tasks.models.runtime import on_own_stream
from tasks.shard.chunk import steps_of
from tasks.shard.pipeline import Pipeline
from tasks.shard.staged import staged
from tasks.shard.tables import chunk_tables
from tasks.shard.work import Work


@dataclass(slots=True)
class _Handful:
    works: Sequence[Work]
    tables: dict[str, pa.Table] = field(default_factory=dict)


def worked_off(
    handfuls: Iterable[Sequence[Work]], pipeline: Pipeline, policy: Policy, class_names: list[str]
) -> Iterator[dict[str, pa.Table]]:
    """Yield the tables of each handful, in order.

    On a GPU the handfuls follow each other through four threads (detect, segment, score, lay out), so that the device
    has work while the host resizes, encodes and writes rows for another handful. On a CPU all is done in the caller's
    thread.

    Args:
        handfuls: Images with pixels or failed, in plan order; as many are held at once as there are threads, and one
            more.
        pipeline: The loaded steps.
        policy: Decides over the labels.
        class_names: Names of the classes, in their order.

    Raises:
        VouchError: Something is wrong beyond the images.
    """
    in_turn, side_by_side = _lanes(pipeline, policy, class_names)
    for handful in staged(map(_Handful, handfuls), side_by_side, "lane"):
        for lane in in_turn:
            lane(handful)
        yield handful.tables


Lane = Callable[[_Handful], None]


def _lanes(pipeline: Pipeline, policy: Policy, class_names: list[str]) -> tuple[list[Lane], list[Lane]]:
    """What is done in the caller's thread, and what in threads of their own."""
    steps = steps_of(pipeline, class_names)

    def lay_out(handful: _Handful) -> None:
        handful.tables = chunk_tables(handful.works, pipeline, policy)

    device = pipeline.lanes_on
    if device is None:
        return [*map(_on_works, steps), lay_out], []
    return [], [*(on_own_stream(_on_works(step), device, index) for index, step in enumerate(steps)), lay_out]


def _on_works(step: Callable[[Sequence[Work]], None]) -> Lane:
    def lane(handful: _Handful) -> None:
        step(handful.works)

    return lane

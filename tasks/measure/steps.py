"""Puts a timer around every step of `process_shard`, from outside."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from tasks.measure.stage_timer import StageTimer

STEPS: Final = ("acquire", "detect", "segment", "score", "route", "tables", "write", "rest")
STORAGE: Final = ("acquire", "write")
FETCHING: Final = "fetching"
DECODING: Final = "decoding"


@contextmanager
def timed_steps(timer: StageTimer, synchronize: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Time what process_shard calls while the block runs.

    acquire is the waiting for decoded images and for plans; the threads that fetch and decode them beside the models
    are summed under FETCHING and DECODING. tables is laying out rows and counting them, write the parts and the
    marker. Wrap process_shard itself as `rest`. The steps must go on in one thread (switched_off: overlap).

    The time of the batches that models run, with what prepares them and takes them apart, counts as the step's
    `forward` as well.

    Args:
        timer: Gets the times.
        synchronize: Waits until the device has done what it was given.
    """
    from tasks import acquire as acquiring
    from tasks.acquire import acquire, decode
    from tasks.detect import Detect
    from tasks.models.batching import Batcher
    from tasks.presence import Presence
    from tasks.score import Score
    from tasks.segment import Segment
    from tasks.shard import shard, steps
    from tasks.store.local import LocalStore
    from tasks.store.s3 import S3Store

    timed: dict[str, list[tuple[object, str]]] = {
        "acquire": [(shard, "read_plan"), (shard, "read_marker"), (shard, "best_marker")],
        "detect": [(Detect, "__call__")],
        "segment": [(Segment, "__call__")],
        "score": [(Score, "__call__"), (Presence, "__call__")],
        "route": [(steps, "route")],
        "tables": [(steps, "chunk_tables"), (shard, "join_tables"), (shard, "count")],
        "write": [(shard, "write_part"), (shard, "write_marker")],
    }
    with ExitStack() as stack:
        for step, places in timed.items():
            for owner, name in places:
                stack.enter_context(_replaced(owner, name, timer.wrap(step, getattr(owner, name))))
        stack.enter_context(_replaced(shard, "acquire", timer.wrap_generator("acquire", acquire)))
        stack.enter_context(_replaced(acquiring, "decode", timer.wrap_in_threads(DECODING, decode)))
        stack.enter_context(_replaced(Batcher, "run", timer.wrap_forward(Batcher.run, synchronize)))
        for store in (LocalStore, S3Store):
            stack.enter_context(_replaced(store, "get", timer.wrap_in_threads(FETCHING, store.get)))
        yield


@contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)

"""Hands the shards of a run to workers on a Ray cluster, a few at a time, and says what became of each.

The failure rules are here and nowhere else: Ray restarts and retries nothing.
"""

import contextlib
import heapq
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from vouch_labels.schemas.campaign import RunConfig
from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.schemas.records import ShardRef
from vouch_labels.schemas.text import duration, plural
from vouch_labels.tasks.nodes import Answer, Connection, Description, Refusal, Size, Start, Worker, one_line
from vouch_labels.tasks.shard.events import OnEvent, Progress, Workers

logger = logging.getLogger(__name__)

DEPTH: Final = 2
"""Shards that a worker has been given: the one that it processes, and the next."""
MORE_LOSSES: Final = 3
"""How many more workers than run.retries a shard may lose: a worker that dies is seldom the shard's fault."""
FAILURES: Final = 3
"""Shards that fail one after the other, a worker, after which the fault is not the shards'."""
TURN_S: Final = 0.5
"""Seconds for which the driver waits for news before it looks at its clocks."""
GROW_S: Final = 10.0
"""Seconds between two looks at how large the cluster is."""

TOO_LONG: Final = "took longer than run.shard_timeout_s allows; raise it, or make run.shard_size smaller for new images"


class Attempt(NamedTuple):
    """What became of a shard in the end."""

    shard: str
    images: int
    error: str
    """Why it could not be finished; empty: it is done."""


@dataclass
class _Given:
    """A shard that a worker has been given."""

    shard: str
    stream: Any
    since: float
    """When the worker could begin with it, at the earliest."""
    said: Progress = field(default_factory=lambda: Progress(0, 0, 0, 0))
    """What has been reported of it, to be taken back if the worker is lost."""


@dataclass
class _Slot:
    """A worker that was asked for."""

    number: int
    actor: Any
    call: Any
    """The answer that is awaited before it gets shards: of `place`, then of `ready`; None: it is ready."""
    ready: Any
    """The answer of `ready`, which is asked for at once: models are loaded while the run does something else."""
    since: float
    """When it was asked for, or got its place."""
    where: str = ""
    """Its process and node, once it has a place."""
    given: deque[_Given] = field(default_factory=deque)
    failed: set[str] = field(default_factory=set)
    """Shards that have failed on it since one was done."""

    @property
    def name(self) -> str:
        return f"worker {self.number} ({self.where or 'no place yet'})"


class Cluster:
    """The workers of one run; use it in a with block, which ends them however it is left.

    A worker gets shards once its models are loaded, two at a time, so that it never waits and what is under way stays
    small for any number of shards. What dies is replaced, what differs or fails again and again is retired.
    """

    def __init__(self, start: Start, size: Size, on_event: OnEvent, worker: type = Worker) -> None:
        """Prepare; nothing is connected before the block is entered."""
        self._start, self._size, self._tell, self._class = start, size, on_event, worker
        self._config: RunConfig = start.settings.campaign.run
        self._slots: list[_Slot] = []
        self._asked = 0
        self.lost: list[str] = []
        """Workers that died: name and reason."""
        self.retired: list[str] = []
        """Workers that were given up: name and reason."""
        self.most = 0
        """Most workers that were ready at once."""
        self._description: Description | None = None
        self._starts_failed: list[str] = []
        """Why workers ended before they were ready, since the last that was."""
        self._last_error: UserError | None = None
        self._connection = Connection(self._config, size)

    def __enter__(self) -> Self:
        """Connect, and ask for the first worker.

        Raises:
            UserError: Ray is not installed, no cluster answers, or a local machine is too small.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._connection)
            stack.callback(self._end_all)
            self._set_target()
            self._looked = self._placed = time.monotonic()
            self._ask()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers, and the cluster if it was started here."""
        self._stack.close()

    def describe(self) -> Description:
        """What the first worker that is ready computes; all others must compute the same.

        Raises:
            UserError: The first worker refuses: it misses packages, folders, credentials or models.
            VouchError: Workers die before they are ready.
        """
        while self._description is None:
            self._turn(deque())
            if self._last_error is not None:
                raise self._last_error
            self._replace(1)
        return self._description

    def prepare(self, due: int) -> None:
        """Ask for the workers that so many shards take, so that they start while the run does something else."""
        self._replace(due)

    def work(self, shards: Iterator[ShardRef], due: int, check: Callable[[], None]) -> Iterator[Attempt]:
        """Have shards processed, and yield each as it is finished or given up.

        Args:
            shards: Those that are due; taken only as fast as workers take them.
            due: How many they are.
            check: Called at every turn; what it raises ends the workers.

        Raises:
            UserError: The set-up is at fault, or the cluster has no place for any worker.
            VouchError: Workers die before they are ready, again and again.
        """
        board = _Board(shards, self._config)
        finished = failed_in_a_row = 0
        while True:
            check()
            self._replace(due - finished)
            if not self._slots:  # all retired: their shards wait for the next run
                if self._last_error is not None:
                    raise self._last_error
                return
            self._feed(board)
            if board.is_empty() and not any(slot.given for slot in self._slots):
                return
            done = deque[Attempt]()
            self._turn(done, board)
            for attempt in done:
                finished += 1
                failed_in_a_row = failed_in_a_row + 1 if attempt.error else 0
                yield attempt
                if failed_in_a_row >= FAILURES * max(1, len(self._slots)):
                    return

    def words(self) -> str:
        """How many workers there are, as in: 2 workers, 1 lost."""
        ready = sum(slot.call is None for slot in self._slots)
        return ", ".join(
            [plural(ready, "worker")]
            + [f"{len(some)} {what}" for some, what in ((self.lost, "lost"), (self.retired, "given up")) if some]
        )

    def _end_all(self) -> None:
        import ray

        for slot in self._slots:
            with contextlib.suppress(Exception):
                ray.kill(slot.actor, no_restart=True)
        self._slots.clear()

    def _set_target(self) -> None:
        """Settle how many workers there should be, by the size that the cluster has now."""
        room, asked = self._connection.room(), self._config.workers
        if room == 0 and self._config.ray.address == "local":
            raise UserError(
                f"run.gpus_per_worker: {self._connection.lacks()}; use 0 to label on the CPU, or lower "
                "run.cpus_per_worker"
            )
        if room == 0 and not self._asked:
            wait = duration(self._config.ray.nowhere_s)
            logger.warning("%s: waiting %s for a node that has more", self._connection.lacks(), wait)
        self._target = max(1, room) if asked == "auto" else asked

    def _ask(self) -> None:
        import ray

        self._asked += 1
        actor = (
            ray.remote(self._class)
            .options(num_cpus=self._size.cpus, num_gpus=self._size.gpus, max_restarts=0, max_task_retries=0)
            .remote(self._start)
        )
        self._slots.append(_Slot(self._asked, actor, actor.place.remote(), actor.ready.remote(), time.monotonic()))
        self._say()

    def _replace(self, wanted: int) -> None:
        """Ask for the workers that are missing."""
        now = time.monotonic()
        if now - self._looked > GROW_S:
            self._looked = now
            self._set_target()
        for _ in range(min(wanted, self._target - len(self.retired)) - len(self._slots)):
            self._ask()

    def _say(self) -> None:
        ready = sum(slot.call is None for slot in self._slots)
        self.most = max(self.most, ready)
        self._tell(Workers(ready, len(self._slots) - ready, len(self.lost), len(self.retired)))

    def _feed(self, board: "_Board") -> None:
        ready = [slot for slot in self._slots if slot.call is None]
        for depth in range(DEPTH):
            for slot in ready:
                if len(slot.given) == depth:
                    shard = board.next_for(slot.number, alone=len(ready) == 1)
                    if shard is not None:
                        stream = slot.actor.process.options(num_returns="streaming").remote(shard)
                        slot.given.append(_Given(shard, stream, time.monotonic()))

    def _turn(self, done: "deque[Attempt]", board: "_Board | None" = None) -> None:
        """Wait for news of the workers, take in all that there are, and look at the clocks."""
        import ray

        waiting = [(self._awaited(slot), slot) for slot in self._slots]
        slots = {id(ref): slot for ref, slot in waiting if ref is not None}
        refs = [ref for ref, _ in waiting if ref is not None]
        if not refs:
            time.sleep(TURN_S / 10)  # shards wait for their next try
        elif ray.wait(refs, num_returns=1, timeout=TURN_S, fetch_local=False)[0]:
            for ref in ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)[0]:
                slot = slots[id(ref)]
                if slot.call is not None:
                    self._take_call(slot)
                else:
                    self._take_item(slot, board, done)
        self._look_at_clocks(board, done)

    @staticmethod
    def _awaited(slot: _Slot) -> Any:  # noqa: ANN401 - Ray has no types for both
        return slot.call if slot.call is not None else slot.given[0].stream if slot.given else None

    def _take_call(self, slot: _Slot) -> None:
        import ray

        try:
            answer = ray.get(slot.call)
        except ray.exceptions.RayError as error:
            self._fail_start(slot, _reason(error))
            return
        now = time.monotonic()
        if isinstance(answer, str):
            self._placed = now
            slot.where, slot.call, slot.since = answer, slot.ready, now
        elif isinstance(answer, Refusal):
            self._retire(slot, None, answer.reason)
            if self._description is None or not self._slots:
                self._last_error = UserError(f"{slot.name}: {answer.reason}")
        elif self._description is not None and answer.stages != self._description.stages:
            unlike = [name for name, key in answer.inputs.items() if self._description.inputs.get(name) != key]
            self._retire(
                slot, None,
                f"its labels would differ in {', '.join(unlike) or 'precision'}; give all nodes the same files and "
                "kind of GPU, or set models.precision",
            )  # fmt: skip
        else:
            self._description = self._description or answer
            slot.call = None
            self._starts_failed.clear()
        self._say()

    def _fail_start(self, slot: _Slot, reason: str) -> None:
        self._starts_failed.append(reason)
        self._drop(slot, None, reason)
        if len(self._starts_failed) >= FAILURES:
            raise VouchError(
                f"{plural(FAILURES, 'worker')} ended before they were ready, the last as {reason}; see the logs "
                "of their nodes"
            )

    def _take_item(self, slot: _Slot, board: "_Board | None", done: "deque[Attempt]") -> None:
        import ray

        given = slot.given[0]
        try:
            item = ray.get(next(given.stream))
        except (ray.exceptions.RayError, StopIteration) as error:
            self._lose(slot, board, done, _reason(error))
            return
        if isinstance(item, Progress):
            given.said = given.said.plus(item)
            self._tell(item)
            return
        slot.given.popleft()
        if slot.given:
            slot.given[0].since = time.monotonic()
        self._take_answer(slot, given.shard, item, board, done)

    def _take_answer(
        self, slot: _Slot, shard: str, answer: Answer, board: "_Board | None", done: "deque[Attempt]"
    ) -> None:
        assert board is not None
        if not answer.error:
            slot.failed.clear()
            done.append(Attempt(shard, answer.images, ""))
            return
        if answer.is_users:
            board.give_back([shard])
            # On one worker it may be the node's; on the second it is the run's.
            self._last_error, before = UserError(answer.error), self._last_error
            self._retire(slot, board, answer.error)
            if before is not None:
                raise self._last_error
            return
        slot.failed.add(shard)
        board.fail(shard, slot.number, answer.error, done)
        if len(slot.failed) >= FAILURES and any(other.call is None and not other.failed for other in self._slots):
            self._retire(slot, board, f"{plural(FAILURES, 'shard')} failed on it, the last with: {answer.error}")

    def _look_at_clocks(self, board: "_Board | None", done: "deque[Attempt]") -> None:
        now, limits = time.monotonic(), self._config.ray
        if all(not slot.where for slot in self._slots) and self._slots and now - self._placed > limits.nowhere_s:
            raise UserError(
                f"no worker has found a place for {duration(limits.nowhere_s)}: {self._connection.lacks()}, some of it "
                "in use perhaps; add a node with room for one, or lower run.gpus_per_worker or run.cpus_per_worker"
            )
        for slot in list(self._slots):
            if slot.call is not None and slot.where and now - slot.since > limits.worker_start_s:
                reason = f"it was not ready within {duration(limits.worker_start_s)} (run.ray.worker_start_s)"
                self._fail_start(slot, reason)
            elif board and slot.given and now - slot.given[0].since > self._config.shard_timeout_s:
                late = slot.given[0].shard
                self._drop(slot, board, f"shard {late} took longer than run.shard_timeout_s", late)
                board.fail(
                    late, slot.number,
                    TOO_LONG,
                    done,
                )  # fmt: skip

    def _lose(self, slot: _Slot, board: "_Board | None", done: "deque[Attempt]", reason: str) -> None:
        late = slot.given[0].shard
        self._drop(slot, board, reason, late)
        if board is not None:
            board.lose(late, reason, done)

    def _drop(self, slot: _Slot, board: "_Board | None", reason: str, keep: str = "") -> None:
        """Count a worker as lost; its shards, but for `keep`, are given to others."""
        self._end(slot, board, keep)
        self.lost.append(f"{slot.name}: {reason}")
        others = "; its shards are given to others" if slot.given else ""
        logger.warning("%s is lost: %s%s", slot.name, reason, others)
        self._say()

    def _retire(self, slot: _Slot, board: "_Board | None", reason: str) -> None:
        """Give a worker up for good; its shards are given to others."""
        self._end(slot, board, "")
        self.retired.append(f"{slot.name}: {reason}")
        logger.warning("%s is given up: %s", slot.name, reason)
        self._say()

    def _end(self, slot: _Slot, board: "_Board | None", keep: str) -> None:
        import ray

        self._slots.remove(slot)
        with contextlib.suppress(Exception):
            ray.kill(slot.actor, no_restart=True)
        for given in slot.given:
            self._tell(given.said.taken_back())
        if board is not None:
            board.give_back([given.shard for given in slot.given if given.shard != keep])


class _Board:
    """The shards that are still to be given out, and how often each was tried."""

    def __init__(self, shards: Iterator[ShardRef], config: RunConfig) -> None:
        self._shards, self._config = shards, config
        self._again = deque[str]()
        """Shards that were given to a worker which is no more."""
        self._later: list[tuple[float, str, int]] = []
        """Heap of shards that failed: when they may be tried again, and the worker that is not preferred."""
        self._fails, self._losses = Counter[str](), Counter[str]()
        self._ahead: str | None = None

    def is_empty(self) -> bool:
        """Whether nothing is left to give out."""
        if self._ahead is None and not self._again and not self._later:
            self._ahead = self._from_plan()
        return self._ahead is None and not self._again and not self._later

    def _from_plan(self) -> str | None:
        shard = next(self._shards, None)
        return None if shard is None else shard.id

    def next_for(self, worker: int, *, alone: bool) -> str | None:
        """The next shard for a worker, unless there is none for now."""
        if self._again:
            return self._again.popleft()
        if self._later and self._later[0][0] <= time.monotonic() and (alone or self._later[0][2] != worker):
            return heapq.heappop(self._later)[1]
        ahead, self._ahead = self._ahead, None
        return ahead or self._from_plan()

    def give_back(self, shards: list[str]) -> None:
        """Take back what was given to a worker, to be the next given out."""
        self._again.extendleft(reversed(shards))

    def lose(self, shard: str, reason: str, done: "deque[Attempt]") -> None:
        """A worker was lost with a shard."""
        self._losses[shard] += 1
        if self._losses[shard] > self._config.retries + MORE_LOSSES:
            done.append(
                Attempt(shard, 0, f"each of {self._losses[shard]} workers that took it was lost, the last as {reason}")
            )
        else:
            self.give_back([shard])

    def fail(self, shard: str, worker: int, error: str, done: "deque[Attempt]") -> None:
        """A shard has failed on a worker."""
        self._fails[shard] += 1
        if self._fails[shard] > self._config.retries:
            done.append(Attempt(shard, 0, error))
            return
        due = time.monotonic() + self._config.retry_delay_s * 2 ** (self._fails[shard] - 1)
        heapq.heappush(self._later, (due, shard, worker))


def _reason(error: BaseException) -> str:
    """What of a Ray error's many lines says why."""
    text = str(error)
    for sign, words in (
        ("running low on memory", "its node ran out of memory"),
        ("node has died", "its node died"),
        ("No module named", "its node has no Vouch: install the same packages on every node"),
    ):
        if sign in text:
            return words
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return one_line(cause)
    return "its process died"

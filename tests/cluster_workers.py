"""Workers that fail in ways that a test chooses; Ray's processes import them from here.

They hold no models. What they should do stands in files of the workspace's folder, named after the shard's first key.
"""

import os
import queue
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.processes import until
from vouch_labels.schemas.errors import StoreError, UserError
from vouch_labels.tasks.nodes import Answer, Description, Refusal, Start, Worker
from vouch_labels.tasks.shard.events import Event, Progress
from vouch_labels.tasks.shard.shard import ShardSettings


def orders(workspace: str, **files: str) -> None:
    """Say what is to become of shards: `a="die once"`."""
    folder = Path(workspace) / "orders"
    folder.mkdir(parents=True, exist_ok=True)
    for name, what in files.items():
        (folder / name).write_text(what)


class Obedient(Worker):
    """Does as ordered: dies, fails, refuses, waits; a shard without an order is done at once, with ten images."""

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        self._folder = Path(start.settings.campaign.workspace.uri) / "orders"

    def _order(self, name: str) -> str:
        path = self._folder / name
        what = path.read_text() if path.is_file() else ""
        if what.endswith(" once"):
            try:
                path.rename(f"{path}.done")  # of several workers one
            except FileNotFoundError:
                return ""
        return what.removesuffix(" once")

    def ready(self) -> Description | Refusal:
        what = self._order("start")
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "refuse":
            return Refusal("it has no models; copy them")
        if what == "wait":
            time.sleep(3600)
        other = what == "differ"
        return Description({"detect": "2" if other else "1"}, {"detector weights": "b" if other else "a"}, "recipe")

    def process(self, shard: str) -> Iterator[Progress | Answer]:
        with (self._folder / "log").open("a") as file:
            file.write(f"{shard} {os.getpid()}\n")
        what = self._order(shard)
        yield Progress(4, 0, 1, 3)
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "wait":
            time.sleep(3600)
        if what == "hold":
            until(lambda: (self._folder / "go").exists())
        if what == "mine":
            yield Answer(error=str(UserError("no access; check the credentials")), is_users=True)
        elif what == "fail":
            yield Progress(-4, 0, -1, -3)
            yield Answer(error=str(StoreError("the store is down")))
        else:
            yield Progress(6, 0, 1, 5)
            yield Answer(10)


ORDERS = "VOUCH_TEST_ORDERS"
"""Variable that names the folder of what becomes of shards; tests have it passed on to workers."""


class Fragile(Worker):
    """The worker itself, which notes its shards, and dies or waits as ordered in the middle of one or at its end."""

    def _process(self, shard: str, events: "queue.SimpleQueue[Event | None]") -> Answer:
        folder = Path(os.environ[ORDERS])
        with (folder / "log").open("a") as file:
            file.write(f"{shard} {os.getpid()}\n")
        order = folder / shard
        what = order.read_text() if order.is_file() else ""
        if what.startswith("wait"):  # until so many processes have had shards
            count = int(what.split()[1])
            until(lambda: (folder / "go").exists() or len(_processes(folder / "log")) >= count)
        if what.startswith("die"):
            order.unlink()
        if what == "die":
            events = _Deadly()
        answer = super()._process(shard, events)
        if what == "die done":
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


def _processes(log: Path) -> set[str]:
    return {line.split()[1] for line in log.read_text(encoding="utf-8").splitlines()}


class _Deadly(queue.SimpleQueue):
    def put(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Rival(Worker):
    """The worker itself; the second one of a run computes in another precision, and the first waits for it."""

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        self._folder = Path(os.environ[ORDERS])
        try:
            (self._folder / "first").mkdir()
        except FileExistsError:
            campaign = self._settings.campaign
            models = campaign.models.model_copy(update={"precision": "bf16"})
            self._settings = ShardSettings(campaign.model_copy(update={"models": models}), self._settings.policy)

    def process(self, shard: str) -> Iterator[Progress | Answer]:
        until((self._folder / "go").exists)
        yield from super().process(shard)

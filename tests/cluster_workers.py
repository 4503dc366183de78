"""Workers that fail in ways that a test chooses; Ray's processes import them from here.

They hold no models. What they should do stands in files of the workspace's folder, named after the shard's first key.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.processes import until
from vouch_labels.schemas.errors import StoreError, UserError
from vouch_labels.tasks.nodes import Answer, Description, Refusal, Start, Worker
from vouch_labels.tasks.shard.events import Progress


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


class Fragile(Worker):
    """The worker itself, which dies in the middle of a shard as ordered."""

    def process(self, shard: str) -> Iterator[Progress | Answer]:
        path = Path(self._start.settings.campaign.workspace.uri).with_name("kill") / shard
        for item in super().process(shard):
            if path.is_file() and isinstance(item, Answer):
                path.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            yield item

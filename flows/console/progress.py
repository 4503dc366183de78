"""Shows how a run goes on: a live line on a terminal, a plain line now and then elsewhere."""

import logging
import time
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from vouch_labels.flows.console.output import printable
from vouch_labels.schemas.text import duration, plural
from vouch_labels.tasks.shard.events import (
    Comparing,
    Event,
    Exporting,
    Listing,
    Loading,
    Planned,
    Reading,
    Routing,
    Training,
    Workers,
)
from vouch_labels.tasks.shard.events import Progress as Step

PLAIN_EVERY_S: Final = 10.0
"""Seconds between two plain lines."""
WARN: Final = ("vouch_labels.tasks", "vouch_labels.flows.prefect_server")
"""Loggers whose warnings are for the user to read."""
RATE_OVER_S: Final = 60.0
"""The rate is that of about the last minute, so that time left follows what the machine does now."""
_PHASES: Final[dict[type, str]] = {Listing: "listing the source", Comparing: "comparing", Routing: "routing"}
_UNITS: Final = {"listing": "key", "exporting": "image", "comparing": "image", "routing": "label"}
"""First word of a phase -> what is counted in it."""


class RunProgress:
    """Turns the events of a run into a progress display; use it in a with block, and call it with each event.

    Progress bars need a terminal that can redraw; without one, or when plain is asked for, a line is printed at each
    new phase and every ten seconds.
    """

    def __init__(self, console: Console, plain: bool) -> None:
        """Prepare; nothing is drawn before the block is entered."""
        self._plain = plain or not console.is_terminal
        self._console = console
        self._state = _State()
        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), _Figures(self._state),
            console=console, auto_refresh=False,
        )  # fmt: skip
        self._task = self._bar.add_task(self._state.phase, total=None)
        # What others print goes to the log (output.quiet); redirected, they would come back to the terminal.
        self._live = Live(
            self._bar, console=console, refresh_per_second=5, transient=True,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._said = (time.monotonic(), "")
        self._printed = ""
        self._warnings = _Warnings(console)

    def __enter__(self) -> Self:
        """Begin to draw, and to pass on what the steps warn of."""
        for name in WARN:
            logging.getLogger(name).addHandler(self._warnings)
        # Plain lines begin with the first event: nothing goes before a refusal.
        if not self._plain:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Clear the live line; of plain ones the last says how far it came."""
        for name in WARN:
            logging.getLogger(name).removeHandler(self._warnings)
        if self._plain:
            self._say_last()
        else:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take note of an event; safe from any one thread at a time."""
        state = self._state
        before, line = state.phase, self._line()
        state.take(event)
        if self._plain and state.phase != before:
            self._say_last(line)
        if self._plain:
            self._say()
        else:
            self._bar.update(self._task, description=state.phase, completed=state.through, total=state.total or None)

    def _say(self) -> None:
        now, (then, phase) = time.monotonic(), self._said
        if phase == self._state.phase and now - then < PLAIN_EVERY_S:
            return
        # The first image of an export or a comparison says nothing yet.
        first = phase != self._state.phase and self._state.phase.startswith(("exporting", "comparing", "reading"))
        self._print(self._state.phase if first else self._line())
        self._said = (now, self._state.phase)

    def _line(self) -> str:
        figures = self._state.figures()
        return f"{self._state.phase}: {figures}" if figures else self._state.phase

    def _say_last(self, line: str | None = None) -> None:
        """Print how far a phase came, unless its last line says so; figures of seconds ago are not how it ended."""
        line = self._line() if line is None else line
        if self._said[1] and line != self._printed:
            self._print(line)

    def _print(self, line: str) -> None:
        self._printed = line
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)


class _Warnings(logging.Handler):
    """Shows warnings, such as batches halved for want of memory; errors are counted and listed at the end."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            self._console.print(printable(record.getMessage()), highlight=False, soft_wrap=True, markup=False)


class _State:
    """The figures so far."""

    def __init__(self) -> None:
        self.phase = "starting"
        self.through = self.total = self.new = self.accepted = self.review = self.failed = 0
        self.workers = ""
        self.loss = 0.0
        self._recent: list[tuple[float, int]] = []

    def take(self, event: Event) -> None:
        match event:
            case Listing(seen) | Comparing(seen) | Routing(seen):
                self.phase = _PHASES[type(event)]
                self.through, self.total = seen, 0
            case Exporting(images, step):
                self.phase = f"exporting {step}"
                self.through, self.total = images, 0
            case Planned(images, done, _):
                self.phase = "planned"
                self.through, self.total = done, images
            case Loading(what):
                self.phase = f"loading {what}"
            case Workers(ready, waiting, lost, retired):
                parts = ((ready, "ready"), (waiting, "starting"), (lost, "lost"), (retired, "given up"))
                self.workers = "workers: " + ", ".join(f"{number} {what}" for number, what in parts if number)
            case Reading(done, total):
                self.phase = "reading the file"
                self.through, self.total = done, total
            case Training(done, total, loss):
                self.phase, self.loss = "training", loss
                self._note(done)
                self.through, self.total = done, total
            case Step(done, failed, accepted, review):
                self.phase = "labelling"
                self.through += done + failed
                self.new += done + failed
                self.failed += failed
                self.accepted += accepted
                self.review += review
                self._note(self.new)

    def _note(self, through: int) -> None:
        now = time.monotonic()
        self._recent.append((now, through))
        while len(self._recent) > 2 and now - self._recent[1][0] > RATE_OVER_S:
            self._recent.pop(0)

    def figures(self) -> str:
        if unit := _UNITS.get(self.phase.split()[0]):
            return plural(self.through, unit) if self.through or unit != "key" else ""
        if self.phase == "reading the file":
            return f"{100 * self.through // max(self.total, 1)}%"
        if self.phase == "planned":
            return f"{plural(self.total - self.through, 'image')} to work through, {self.through:,} done before"
        if self.phase not in ("labelling", "training"):
            return self.workers if self.phase.startswith("loading") else ""
        rate = self.rate()
        if self.phase == "training":
            return self._training(rate)
        parts = [f"{self.through:,} of {plural(self.total, 'image')}"]
        if rate:
            left = max(0, self.total - self.through) / rate
            parts.append(f"{rate:.1f} images/s, {duration(left)} left")
        parts.append(f"{self.accepted:,} accepted, {self.review:,} review, {self.failed:,} failed")
        parts += [self.workers] if self.workers else []
        return " | ".join(parts)

    def _training(self, rate: float) -> str:
        steps = plural(self.total, "step") if self.total else "as many steps as there is time for"
        parts = [f"{self.through:,} of {steps}", f"loss {self.loss:.2f}"]
        if rate and self.total:
            parts.append(f"{duration((self.total - self.through) / rate)} left")
        return " | ".join(parts)

    def rate(self) -> float:
        """Images a second, or steps of a training, lately; 0 while unknown."""
        if len(self._recent) < 2:
            return 0.0
        (first, before), (last, after) = self._recent[0], self._recent[-1]
        return max(0.0, (after - before) / (last - first)) if last > first else 0.0


class _Figures(ProgressColumn):
    def __init__(self, state: _State) -> None:
        super().__init__()
        self._state = state

    def render(self, task: Task) -> Text:  # noqa: ARG002 - as columns are called
        return Text(self._state.figures())

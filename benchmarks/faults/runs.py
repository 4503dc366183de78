"""`vouch run` as a process that is met at a chosen moment, and what its workspace holds in the end."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.campaigns import write_campaign
from benchmarks.harness import ROOT
from vouch_labels.schemas.campaign import S3Options
from vouch_labels.schemas.errors import WorkspaceBusyError
from vouch_labels.tasks.store.open import open_uri
from vouch_labels.tasks.store.store import Store

MARK: Final = "VOUCH_FAULTS_RUN"
"""Variable by which the processes of a run are found, whoever their parent is."""
ORPHAN_S: Final = 120.0
"""Seconds after which a process that is left counts as an orphan; an embedded server ends within one or two."""
WORK: Final = ("planned", "labelling", "exporting annotations")
"""Phases in which a run works, as its lines of progress begin."""
AT_WORK: Final = 0.75
"""Share of the signals that come in one of them."""


class Ended(NamedTuple):
    """A run that has ended."""

    code: int
    """Exit code, negative for a signal."""
    words: str
    """What it wrote on standard error."""
    met: bool
    """Whether the signal met it at work."""
    seconds: float
    orphans: int


def campaign_in(folder: Path, source: str, workspace: str, shard_size: int, s3: S3Options | None = None) -> Path:
    """Write a campaign of fake models with small shards, whose source and workspace may lie in a bucket."""
    options = {} if s3 is None else {"s3": s3.model_dump()}
    return write_campaign(
        folder,
        folder,
        source={"uri": source, **options},
        workspace={"uri": workspace, **options},
        run={"shard_size": shard_size, "retry_delay_s": 0.1},
    )


@contextmanager
def started(campaign: Path, environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """Start `vouch run` in a session of its own; what is left of it when the block ends is killed."""
    # Children inherit ignored signals, and what runs in the background of a shell ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    words = [sys.executable, "-m", "vouch_labels.flows.cli", "run", str(campaign), "--plain"]
    with subprocess.Popen(  # noqa: S603 - our own module
        words,
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(
    campaign: Path,
    environment: dict[str, str],
    *,
    number: signal.Signals | None = None,
    phase: str = "",
    after_s: float = 0.0,
    file_bytes: int | None = None,
) -> Ended:
    """Run a campaign.

    Args:
        campaign: Its file.
        environment: Variables of the process.
        number: A signal to send.
        phase: What the line of progress begins with after which it is sent; empty for the start.
        after_s: Seconds from there.
        file_bytes: No file may be larger.
    """
    mark = uuid.uuid4().hex
    start_s = time.monotonic()
    with started(campaign, environment | {MARK: mark}) as process:
        assert process.stderr is not None
        if file_bytes is not None:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        lines: list[str] = []
        if number is not None:
            for line in process.stderr if phase else ():
                lines.append(line)
                if line.startswith(phase):
                    break
            time.sleep(after_s)
        met = number is not None and process.poll() is None
        if number is not None and met:
            process.send_signal(number)
        words = "".join([*lines, process.stderr.read()])
        code = process.wait()
    # One that came to its end before the signal did was not met.
    return Ended(code, words, met and code != 0, time.monotonic() - start_s, _orphans(mark))


def _orphans(mark: str) -> int:
    end = time.monotonic() + ORPHAN_S
    while (left := _marked(mark)) and time.monotonic() < end:
        time.sleep(0.1)
    return len(left)


def _marked(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has just ended, or is another user's
            continue
    return found


def timeline(campaign: Path, environment: dict[str, str]) -> dict[str, float]:
    """Run a campaign undisturbed: the seconds of each phase, by what its line of progress begins with."""
    start_s, last = time.monotonic(), ""
    taken = {"": 0.0}
    with started(campaign, environment) as process:
        assert process.stderr is not None
        lines = []
        for line in chain(process.stderr, [""]):
            lines.append(line)
            now = time.monotonic()
            taken[last] += now - start_s
            start_s, last = now, line.partition(":")[0].strip()
            taken.setdefault(last, 0.0)
        if process.wait():
            raise RuntimeError(f"the undisturbed run failed:\n{''.join(lines)}")
    return taken


def moment(chance: random.Random, taken: dict[str, float], done: bool) -> tuple[str, float]:
    """Choose a moment of a run, three in four of them when it works: a phase, and seconds within it.

    Args:
        chance: What chooses.
        taken: Seconds of each phase of an undisturbed run.
        done: Whether all is labelled, so that only the export is left of the work.
    """
    work = WORK[-1:] if done else WORK
    phases = work if chance.random() < AT_WORK else [phase for phase in taken if phase not in WORK]
    phase = chance.choices(phases, [taken[phase] for phase in phases])[0]
    return phase, chance.uniform(0, taken[phase])


def lock_is_free(campaign: Path) -> bool:
    """Whether the run's lock can be taken now."""
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.store.lock import WorkspaceLock

    config = load_campaign(campaign)
    store = open_uri(config.workspace.uri, config.workspace.s3)
    try:
        # Not watched: the holder ran here, so that whether it still does can be looked up.
        with WorkspaceLock(store, config.run.name, silent_s=0, settle_s=0):
            return True
    except WorkspaceBusyError:
        return False


def content_of(workspace: Store) -> dict[str, bytes]:
    """Every object of a workspace that markers or plans speak of, without locks, source, and times in the export.

    The store's own listing, so without temporary files: a process killed while it writes leaves one behind.
    """
    keys = [info.key for folder in ("runs/", "exports/", "policies/") for info in workspace.list(folder)]
    # Each campaign comes to its bucket by a proxy of its own, and notes that address.
    content = {key: workspace.get(key).data for key in keys if not key.endswith(("lock.json", "source.json"))}
    for name, data in content.items():
        if name.endswith("annotations.json"):
            document = json.loads(data)
            del document["info"]
            content[name] = json.dumps(document).encode()
    return content


def same_content(found: dict[str, bytes], expected: dict[str, bytes]) -> bool:
    """Whether two workspaces hold the same, to the byte.

    Parts without a marker and plans of shards without a generation may lie about: they are named by their content, and
    nobody reads them.
    """
    unread = {name for name in found if "/parts/" in name or ("/plan/" in name and name.endswith(".parquet"))}
    return {name: found[name] for name in found if name not in unread or name in expected} == expected


def environment_of(folder: Path, api: str | None) -> dict[str, str]:
    """The variables of a run: with a named Prefect server, or with one of its own whose database is in the folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "VOUCH_"))}
    own = {"PREFECT_HOME": str(folder / "prefect"), "VOUCH_LOG": str(folder / "vouch.log"), "OMP_NUM_THREADS": "1"}
    return kept | own | ({} if api is None else {"PREFECT_API_URL": api})

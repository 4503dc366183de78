"""Signals at random moments and full disks, on workspaces in folders."""

import os
import random
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.campaigns import draw_pictures
from benchmarks.faults.records import Counts, Journal, Record
from benchmarks.faults.runs import (
    campaign_in,
    content_of,
    environment_of,
    lock_is_free,
    moment,
    run,
    same_content,
    timeline,
)
from vouch_labels.tasks.store.local import LocalStore

SIGNALS: Final = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
PER_CAMPAIGN: Final = 10
"""Signals that one campaign gets before it is run to its end."""
OWN_SERVER_EVERY: Final = 4
"""Of so many campaigns one brings Prefect's server itself; the others share one."""
SHARD_SIZE: Final = 2
PAGE: Final = 4096


class Undisturbed(NamedTuple):
    """A run that nothing happened to, and what it left."""

    images: Path
    api: str
    phases: dict[str, float]
    workspace: Path
    content: dict[str, bytes]


def local_faults(folder: Path, counts: Counts, journal: Journal, api: str) -> Iterator[Record]:
    """Measure every fault as often as the counts say; `api` is the address of a Prefect server."""
    images, workspace = folder / "images", folder / "straight/workspace"
    draw_pictures(images, counts.images)
    campaign = campaign_in(folder / "straight", str(images), str(workspace), SHARD_SIZE)
    phases = timeline(campaign, environment_of(folder / "straight", api))
    straight = Undisturbed(images, api, phases, workspace, content_of(LocalStore(workspace)))
    for fault, times in zip(SIGNALS, (counts.kills, counts.terms, counts.interrupts), strict=True):
        for first in range(0, times, PER_CAMPAIGN):
            most = min(PER_CAMPAIGN, times - first)
            name = f"{fault} {first} to {first + most}"
            yield journal.get(name, partial(_signals, folder / name.replace(" ", "-"), fault, first, most, straight))
    for level in range(counts.levels):
        name = f"full disk {level + 1} of {counts.levels}"
        share = (level + 1) / (counts.levels + 1)
        yield journal.get(name, partial(_full_disk, folder / name.replace(" ", "-"), share, straight))


def _signals(place: Path, fault: str, first: int, most: int, straight: Undisturbed) -> Record:
    """Send signals at random moments of a campaign's runs, then run it to its end."""
    number = SIGNALS[fault]
    own_server = first // PER_CAMPAIGN % OWN_SERVER_EVERY == OWN_SERVER_EVERY - 1
    campaign = campaign_in(place, str(straight.images), str(place / "workspace"), SHARD_SIZE)
    environment = environment_of(place, None if own_server else straight.api)
    chance = random.Random(f"{fault} {first}")
    times = as_said = free = orphans = runs = 0
    done = False
    # A run that ends before its moment is none of those that count; the later ones have less to do.
    while times < most and runs < 4 * most:
        phase, after_s = moment(chance, straight.phases, done)
        ended = run(campaign, environment, number=number, phase=phase, after_s=after_s)
        runs += 1
        orphans += ended.orphans
        done = done or not ended.met
        if ended.met:
            times += 1
            # In the interpreter's first and last steps the signal itself ends it.
            as_said += ended.code in (-number, 128 + number)
            free += lock_is_free(campaign)
    last = run(campaign, environment)
    same = last.code == 0 and same_content(content_of(LocalStore(place / "workspace")), straight.content)
    return Record(fault=fault, times=times, as_said=as_said, free=free, orphans=orphans, same=same, runs=runs + 1)


def _full_disk(place: Path, share: float, straight: Undisturbed) -> Record:
    """Run on a disk that is full when a share of the workspace is written, and again when there is space.

    Where no disk can be mounted (it takes root), no file may be larger than a share of the largest one, which a store
    meets as it meets a full disk.
    """
    disk = place / "disk"
    disk.mkdir(parents=True)
    campaign = campaign_in(place, str(straight.images), str(disk / "workspace"), SHARD_SIZE)
    environment = environment_of(place, straight.api)
    mounted = _mount(disk, int(_taken(straight.workspace) * share))
    largest = max(map(len, straight.content.values()))
    try:
        ended = run(campaign, environment, file_bytes=None if mounted else int(largest * share))
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)  # noqa: S603, S607 - only where it was mounted
        free = lock_is_free(campaign)
        again = run(campaign, environment)
        same = again.code == 0 and same_content(content_of(LocalStore(disk / "workspace")), straight.content)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=False)  # noqa: S603, S607 - as above
    return Record(
        fault="full disk" if mounted else "files limited in size",
        times=int(ended.code != 0),
        as_said=int(ended.code == 1 and "unexpected" not in ended.words),
        free=int(free),
        orphans=ended.orphans + again.orphans,
        same=same,
        runs=2,
    )


def _taken(folder: Path) -> int:
    """Bytes of the pages that the files of a folder take."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


def _mount(folder: Path, size: int) -> bool:
    """Whether a disk in memory of so many bytes could be mounted there."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return os.geteuid() == 0 and subprocess.run(words, capture_output=True, check=False).returncode == 0  # noqa: S603 - the words are ours

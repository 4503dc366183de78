"""How runs come through kills, full disks and bad stores: the same bytes in the end, no orphan, a lock that is free."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from benchmarks.campaigns import Options
from benchmarks.faults.bucket import bucket_faults
from benchmarks.faults.local import OWN_SERVER_EVERY, PER_CAMPAIGN, SHARD_SIZE, local_faults
from benchmarks.faults.proxy import KINDS
from benchmarks.faults.records import Counts, Journal, Record
from benchmarks.harness import Table, seconds


def measure(options: Options) -> Table:
    """Disturb runs, run them to their end, and compare.

    VOUCH_FAULTS names a file that keeps what is done: then an interrupted measurement goes on where it stopped.
    """
    counts, kept = Counts.of(options), os.environ.get("VOUCH_FAULTS")
    with tempfile.TemporaryDirectory(prefix="vouch-faults-") as name, prefect_api(Path(name) / "server") as api:
        folder = Path(name)
        journal = Journal(Path(kept) if kept else folder / "journal")
        records = list(local_faults(folder, counts, journal, api))
        endpoint = os.environ.get("S3_TEST_ENDPOINT")
        if endpoint:
            records += bucket_faults(folder, counts, journal, api, endpoint)
    return _table(records, counts)


@contextmanager
def prefect_api(home: Path) -> Iterator[str]:
    """Start a Prefect server for many runs; yields its address."""
    from vouch_labels.flows.prefect_server import prefect_server, prepare_environment

    prepare_environment()
    os.environ["PREFECT_HOME"] = str(home)
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE"):
        os.environ.pop(name, None)
    from prefect.settings import PREFECT_API_URL

    with prefect_server():
        yield str(PREFECT_API_URL.value())


def _table(records: list[Record], counts: Counts) -> Table:
    groups = {fault: list(group) for fault, group in groupby(records, lambda record: record.fault)}
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    for fault, group in groups.items():
        times = sum(record.times for record in group)
        same = sum(record.same for record in group)
        orphans = sum(record.orphans for record in group)
        said, free = sum(record.as_said for record in group), sum(record.free for record in group)
        taken, undisturbed = sum(record.seconds for record in group), sum(record.undisturbed_s for record in group)
        spoilt, requests = sum(record.spoilt for record in group), sum(record.requests for record in group)
        rows.append(
            [
                fault,
                str(times),
                f"{said} of {times}",
                f"{free} of {times}",
                str(orphans),
                f"{same} of {len(group)}",
                str(sum(record.runs for record in group)),
                f"{seconds(taken)}, {seconds(undisturbed)} without" if taken else "",
                f"{spoilt} of {requests}" if requests else "",
            ]
        )
        name = fault.replace(",", "").replace(" ", "_")
        figures |= {
            f"{name}_times": float(times),
            f"{name}_as_said": float(said),
            f"{name}_lock_free": float(free),
            f"{name}_orphans": float(orphans),
            f"{name}_same_campaigns": float(same),
            f"{name}_campaigns": float(len(group)),
        }
        if taken:
            figures |= {f"{name}_seconds": taken, f"{name}_undisturbed_seconds": undisturbed}
    return Table(
        title="runs that are killed, or meet full disks and bad stores",
        columns=[
            "",
            "met",
            "ended as documented",
            "lock free at once",
            "orphans",
            "same bytes in the end",
            "runs",
            "time",
            "requests spoilt",
        ],
        rows=rows,
        notes=[
            f"Campaigns of {counts.images} small images in shards of {SHARD_SIZE}, models without weights. Signals "
            f"come at random moments of `vouch run`, three in four of them while it works, up to {PER_CAMPAIGN} a "
            f"campaign; one campaign in {OWN_SERVER_EVERY} brings Prefect's server itself.",
            "Met: runs that the fault met; a signal after the end counts for nothing. The last run of a campaign is "
            "undisturbed; then every object that plans, markers and exports name is compared with an undisturbed "
            "workspace's, the time in the export left out.",
            "Orphans: processes of a run, found by a variable of its environment, that are left two minutes after it.",
            "Full disk: in memory, of a share of what the workspace takes; it grows before the second run. Where only "
            "files limited in size are named, no disk could be mounted.",
            f"Requests spoilt: {', '.join(KINDS)} (by {counts.delay_s:g} s), each as often as the others where a "
            "request can have it; source and workspace lie behind the same proxy.",
            "Other work ran on the machine meanwhile: times compare with each other only.",
        ],
        figures=figures,
    )

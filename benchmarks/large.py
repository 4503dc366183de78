"""Benchmarks the commands on millions of labels in thousands of shards, against another checkout of Vouch."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.campaigns import Options, write_campaign
from benchmarks.harness import ROOT, Table, in_child, mebibytes, seconds
from benchmarks.label_files import SHAPES, SIZE, mask_shapes
from benchmarks.routing.size import CLASSES, REVIEWS, VERIFY_S, answer_plan, made_up_tables
from vouch_labels.schemas.errors import UserError, VouchError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SHARDS: Final = {"quick": 4, "": 2_000, "huge": 10_000}
LABELS_A_SHARD: Final = 1_000
LABELS_AN_IMAGE: Final = 5
FOLDER: Final = "VOUCH_LARGE"
"""Names a folder that keeps the made-up workspace for the next time."""
BEFORE: Final = "VOUCH_BEFORE"
"""Names a checkout of Vouch to compare with, which knows no numbers of shards in markers."""
MINUTES: Final = REVIEWS * VERIFY_S / 60
_STEPS: Final = (
    ("status", "made", ["status"]),
    ("certify, nothing asked yet", "made", ["certify"]),
    ("plan-reviews, calibration set", "made", ["plan-reviews"]),
    (f"plan-reviews, validation sample of {REVIEWS:,}", "fitted", ["plan-reviews", "--minutes", f"{MINUTES:g}"]),
    ("certify", "sampled", ["certify"]),
    ("apply", "certified", ["apply", "--no-export", "--plain"]),
    ("report", "certified", ["report"]),
)
"""Name of each command, the state of the workspace that it starts from, and its words."""
_NEXT: Final = {"plan-reviews, calibration set": "fitted", _STEPS[3][0]: "sampled", "certify": "certified"}
"""Commands whose answered result is the next state."""


def measure(options: Options) -> Table:
    """Run each command on a workspace of its own, by this checkout and by an earlier one."""
    shards = SHARDS["huge" if options.huge else "quick" if options.quick else ""]
    labels = shards * LABELS_A_SHARD
    before = os.environ.get(BEFORE)
    builds = {"before": Path(before), "now": ROOT} if before else {"now": ROOT}
    rows: list[list[str]] = []
    figures: dict[str, float] = {"labels": float(labels)}
    with _folder(shards) as folder:
        campaign = write_campaign(folder, folder, classes=list(CLASSES))
        if not (folder / "made").is_dir():
            shutil.rmtree(folder / "workspace", ignore_errors=True)
            in_child(make, campaign=str(campaign), shards=shards)
            (folder / "workspace").rename(folder / "made")
        for name, state, words in _STEPS:
            took: dict[str, Took] = {}
            for build, checkout in builds.items():
                _activate(folder, state, before=build == "before")
                took[build] = run_command(checkout, [words[0], str(campaign), *words[1:]])
                figures |= {
                    f"{name} {build} cpu_seconds": took[build].cpu,
                    f"{name} {build} peak_bytes": took[build].peak,
                }
            rows.append([name, *(cell for build in builds for cell in _cells(took[build], labels)), _ratio(took)])
            if name in _NEXT:
                if "plan-reviews" in name:
                    in_child(answer_plan, campaign=str(campaign))
                shutil.rmtree(folder / _NEXT[name], ignore_errors=True)
                (folder / "workspace").rename(folder / _NEXT[name])
        for state in ("workspace", *_NEXT.values()):
            shutil.rmtree(folder / state, ignore_errors=True)
    return Table(
        title=f"commands on {labels:,} labels in {shards:,} shards",
        columns=[
            "",
            *(f"{build}: {what}" for build in builds for what in ("CPU time", "a label", "peak memory")),
            "CPU",
        ],
        rows=rows,
        notes=[
            "Each command in a process of its own; CPU time is that of all its threads, the start of Python included. "
            f"{LABELS_A_SHARD:,} labels a shard on local disk, masks of 640 x 480, twelve classes; both builds start "
            "from the same workspace, whose making is not in the time.",
            "Other work ran on the machine meanwhile, which makes CPU times longer too, those of both builds alike.",
        ],
        figures=figures,
    )


@contextmanager
def _folder(shards: int) -> Iterator[Path]:
    kept = os.environ.get(FOLDER)
    if kept:
        folder = Path(kept).resolve() / str(shards)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder_name:
        yield Path(folder_name)


def _activate(folder: Path, state: str, *, before: bool) -> None:
    """Make a state the workspace, file by file as links; no file of a workspace is ever changed in place.

    before: as an earlier Vouch has it, without numbers of shards in markers, all shards of a plan in its record.
    """
    import pyarrow.parquet as pq

    shutil.rmtree(folder / "workspace", ignore_errors=True)
    shutil.copytree(folder / state, folder / "workspace", copy_function=os.link)
    if not before:
        return
    for path in folder.glob("workspace/runs/main/done/*/*.json"):
        marker = json.loads(path.read_bytes())
        del marker["numbers"]
        _replace(path, marker)
    for path in folder.glob("workspace/runs/main/plan/*.json"):
        plan = json.loads(path.read_bytes())
        if shards_id := plan.pop("shards_id"):
            table = path.with_name(f"{path.stem}-{shards_id}-shards.parquet")
            plan["shards"] = pq.read_table(table).to_pylist()
            table.unlink()
        _replace(path, plan)


def _replace(path: Path, record: Mapping[str, Any]) -> None:
    path.unlink()
    path.write_text(json.dumps(record), encoding="utf-8")


def _cells(took: "Took", labels: int) -> list[str]:
    return [seconds(took.cpu), f"{took.cpu / labels * 1e6:.2f} us", mebibytes(took.peak)]


def _ratio(took: Mapping[str, "Took"]) -> str:
    return f"{took['now'].cpu / took['before'].cpu:.2f}x" if "before" in took else ""


def make(campaign: str, shards: int) -> None:
    """Write plan, tables and markers of a run: those of one shard, with other ids and keys in each."""
    import numpy as np

    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.schemas.records import Current, ImageRef, Marker
    from vouch_labels.tasks.labels.totals import add_up
    from vouch_labels.tasks.plan.ledger import Ledger
    from vouch_labels.tasks.plan.plan import plan
    from vouch_labels.tasks.policy import default_policy, write_policy
    from vouch_labels.tasks.route import route
    from vouch_labels.tasks.shard.files import count, write_current, write_marker, write_part
    from vouch_labels.tasks.shard.numbers import write_numbers
    from vouch_labels.tasks.shard.pipeline import rerouted, stages_fingerprint
    from vouch_labels.tasks.store.open import open_store
    from vouch_labels.tasks.store.store import map_ordered

    config = load_campaign(Path(campaign))
    workspace, run = open_store(config.workspace), config.run.name
    policy = default_policy(config.classes, config.routing)
    write_policy(workspace, policy)
    stages = rerouted({stage: stage for stage in ("images", "detect", "segment", "score", "presence")}, policy)
    images = LABELS_A_SHARD // LABELS_AN_IMAGE
    template = made_up_tables([_key(0, place) for place in range(images)], LABELS_AN_IMAGE, np.random.default_rng(0))
    template |= {"images": _with_sizes(template["images"]), "segment": _with_masks(template["segment"])}

    def write(number: int, shard: str) -> None:
        tables = {stage: _renumbered(table, number) for stage, table in template.items()}
        tables["route"] = route(tables["images"], tables["detect"], tables["segment"], tables["score"], policy)
        parts = {stage: write_part(workspace, run, shard, stage, table) for stage, table in tables.items()}
        fingerprint = stages_fingerprint(stages)
        numbers = write_numbers(workspace, run, shard, tables)
        counts = count(tables)
        marker = Marker(
            shard=shard, fingerprint=fingerprint, stages=stages, parts=parts, counts=counts, numbers=numbers
        )
        write_marker(workspace, run, marker)

    with Ledger.load(workspace, run) as ledger:
        keys = (_key(number, place) for number in range(shards) for place in range(images))
        plan((ImageRef(key, "0", 0) for key in keys), workspace, run, ledger, images)
        numbered = enumerate(shard.id for shard in ledger.shards())
        for _ in map_ordered(lambda one: write(*one), numbered, 4):
            pass
        current = Current(
            fingerprint=stages_fingerprint(stages), policy=policy.version, classes=CLASSES, inputs={"made up": "0"}
        )
        add_up(workspace, run, ledger, current.fingerprint, keep=True)  # as a run does at its end
    write_current(workspace, run, current)


def _key(shard: int, place: int) -> str:
    return f"camera/{shard:08x}/{place:05d}.jpg"


def _renumbered(table: "pa.Table", number: int) -> "pa.Table":
    """The table of another shard: in ids, keys and contents eight digits say which it is."""
    for name, first in (("label_id", 0), ("sha256", 0), ("key", len("camera/"))):
        if name in table.column_names and table.num_rows:
            column = table[name].combine_chunks()
            width = len(column[0].as_py())
            letters = _letters(column, width)
            letters[:, first : first + 8] = list(f"{number:08x}".encode())
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(place), _strings(letters))
    return table


def _letters(column: "pa.StringArray", width: int) -> "np.ndarray[Any, Any]":
    import numpy as np

    return np.array(column.to_pylist(), f"S{width}").view(np.uint8).reshape(len(column), width).copy()


def _strings(letters: "np.ndarray[Any, Any]") -> "pa.StringArray":
    import numpy as np
    import pyarrow as pa

    count, width = letters.shape
    offsets = np.arange(0, width * (count + 1), width, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets.tobytes()), pa.py_buffer(letters.tobytes()))


def _with_masks(segment: "pa.Table") -> "pa.Table":
    """The table with masks of the images' size."""
    import pyarrow as pa

    shapes = mask_shapes()
    taken = [shapes[row % SHAPES] for row in range(segment.num_rows)]
    new = {"rle_counts": [counts for _, counts, _ in taken], "mask_area": [area for _, _, area in taken]}
    for name, values in new.items():
        place = segment.schema.get_field_index(name)
        segment = segment.set_column(place, segment.schema.field(place), pa.array(values, segment.schema.types[place]))
    return segment


def _with_sizes(images: "pa.Table") -> "pa.Table":
    import pyarrow as pa

    height, width = SIZE
    for name, value in (("width", width), ("height", height), ("labels", LABELS_AN_IMAGE)):
        place = images.schema.get_field_index(name)
        column = pa.array([value] * images.num_rows, images.schema.types[place])
        images = images.set_column(place, images.schema.field(place), column)
    return images


class Took(NamedTuple):
    """What a command took."""

    cpu: float
    """Seconds of all its threads, the start of Python included."""
    peak: float
    """Bytes."""


def run_command(checkout: Path, command: Sequence[str]) -> Took:
    """Run a command of `vouch` from a checkout, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            [sys.executable, "-m", "vouch_labels.flows.cli", *command],
            cwd=checkout,
            env=environment,
            stdout=log,
            stderr=log,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, UserError.exit_code):
            log.seek(0)
            raise VouchError(f"vouch {' '.join(command)}: {log.read()[-1000:].decode(errors='replace')}")
    return Took(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024.0)

"""Gives the readers damaged inputs, in a process of its own: `python -m tests.fuzz.run KIND FIRST COUNT FOLDER`.

Every input gives a result or an error for people in one line. The seed at work stands in FOLDER/seed, so that a process
which ends by a signal (a fault of native code, or too long) says by which. The last line printed is the peak memory.
"""

import signal
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests.fuzz import inputs
from vouch_labels.schemas.errors import CampaignError, UserError
from vouch_labels.tasks.bench.timing import peak_bytes
from vouch_labels.tasks.labels.arrays import SIGNALS, RunLabels

CPU_SECONDS = 30
"""Of one input, after which it is taken to hang; a sound one takes milliseconds."""
MOST_PIXELS = 1_000_000
NOW = datetime(2026, 3, 5, tzinfo=UTC)


def labels() -> RunLabels:
    """Two labels of two images of 40 x 30 pixels."""
    return RunLabels(
        label_ids=pa.array(["l0", "l1"]),
        class_index=np.array([0, 1]),
        class_names=("cat", "dog"),
        image_index=np.array([0, 1]),
        boxes=np.array([[1, 1, 9, 9], [2, 2, 20, 20]], np.float32),
        signals=np.full((2, len(SIGNALS)), 0.5, np.float32),
        p_correct=np.array([0.9, 0.4]),
        accepted=np.array([True, False]),
        keys=pa.array(["0.jpg", "1.jpg"]),
        contents=pa.array(["0" * 64, "1" * 64]),
    )


SIZES = {"0.jpg": (40, 30), "1.jpg": (40, 30)}


def truth(seed: int, folder: Path) -> None:
    """Read a truth, draw its masks, and hold labels against it."""
    from vouch_labels.tasks.evaluate.ground_truth import objects_of, read_truth
    from vouch_labels.tasks.evaluate.run_truth import truth_of_labels

    path = folder / "truth.json"
    path.write_bytes(inputs.truth_file(seed))
    found = read_truth(path)
    for line in (*found.file.lines(), *found.file.doubts()):
        line.encode()
    for place in range(len(found.images)):
        rows = found.rows(place)
        objects_of(found, rows[found.has_mask[rows]], np.zeros(found.has_mask[rows].sum(), np.int64), (30, 40), True)
    truth_of_labels(labels(), SIZES, found).file.model_dump_json()


def verdicts(seed: int, folder: Path) -> None:
    """Check a verdict file, and see that what it takes may be stored."""
    from vouch_labels.tasks.reviews.import_verdicts import check_file
    from vouch_labels.tasks.reviews.row_checks import RowChecker
    from vouch_labels.tasks.reviews.verdicts import trouble

    suffix, content = inputs.verdict_file(seed)
    path = folder / f"verdicts{suffix}"
    path.write_bytes(content)
    file = check_file(path, RowChecker(("cat", "dog"), "ann", NOW, NOW), labels(), lambda _keys: SIZES)
    try:
        kept = 0
        for table in file.tables():
            assert trouble(table) == ""
            kept += table.num_rows
        assert kept + len(file.refused) + file.unanswered == file.rows
        assert all("\n" not in one.reason for one in file.refused)
    finally:
        file.verdicts.close()


def images(seed: int, folder: Path) -> None:
    """Decode a picture: pixels, or one line why there are none."""
    from vouch_labels.schemas.records import Failed
    from vouch_labels.tasks.decode import decode

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about what is damaged
        found = decode("picture.jpg", inputs.image_file(seed), MOST_PIXELS)
    if isinstance(found, Failed):
        assert found.reason.isprintable(), found.reason
        assert found.step == "acquire", found.reason
        raise UserError(found.reason)
    height, width, channels = found.pixels.shape
    assert (channels, height * width <= MOST_PIXELS, found.pixels.dtype) == (3, True, np.uint8)


def campaigns(seed: int, folder: Path) -> None:
    """Read a campaign file."""
    from vouch_labels.schemas.campaign_file import load_campaign

    path = folder / "campaign.yaml"
    path.write_bytes(inputs.campaign_file(seed))
    load_campaign(path)


KINDS: dict[str, Callable[[int, Path], Any]] = {
    "truth": truth,
    "verdicts": verdicts,
    "images": images,
    "campaigns": campaigns,
}


def main(kind: str, first: int, count: int, folder: Path) -> None:
    """Run so many inputs of a kind, from a seed on."""
    # By default this signal ends the process, also within native code.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    taken = refused = 0
    for seed in range(first, first + count):
        (folder / "seed").write_text(str(seed))
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            KINDS[kind](seed, folder)
            taken += 1
        except UserError as error:
            refused += 1
            message = str(error)
            # A campaign's problems are a line each.
            lines = message.count("\n") + 1 if not isinstance(error, CampaignError) else 1
            if lines > 1:
                raise ValueError(f"{lines} lines: {message}") from error
    signal.setitimer(signal.ITIMER_PROF, 0)
    print(f"{kind}: {taken} taken, {refused} refused")
    print(peak_bytes() >> 10)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))

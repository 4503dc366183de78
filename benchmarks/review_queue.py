"""The review queue: filling it with 10,000 questions, and what each step costs a reviewer."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.campaigns import Options, write_campaign
from benchmarks.harness import Table, in_child, mebibytes, seconds
from benchmarks.routing.size import CLASSES, make_workspace

if TYPE_CHECKING:
    from vouch_labels.review_ui.queue.queue import Queue

IMAGES: Final = 10_000
LABELS_AN_IMAGE: Final = 10
BATCH: Final = 25
LIMIT_SECONDS: Final = 180.0
LIMIT_BYTES: Final = 3 << 29
LIMIT_ANSWER_SECONDS: Final = 0.15


def measure(options: Options) -> Table:
    """Fill a queue with a question about every image, then review some of it as a reviewer does."""
    images, answers = (300, 50) if options.quick else (IMAGES, 500)
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        campaign = str(write_campaign(Path(folder), Path(folder), classes=list(CLASSES)))
        in_child(make_workspace, campaign=campaign, labels=images * LABELS_AN_IMAGE, labels_an_image=LABELS_AN_IMAGE)
        in_child(_ask, campaign=campaign)
        done = in_child(_review, campaign=campaign, folder=f"{folder}/mongod", answers=answers).value
    rows = [
        [f"fill with {images:,} questions", seconds(done["fill_seconds"]), mebibytes(done["fill_bytes"])],
        ["mongod meanwhile", "", mebibytes(done["mongod_bytes"])],
        [f"limit for {IMAGES:,}", seconds(LIMIT_SECONDS), mebibytes(LIMIT_BYTES)],
        ["fill again, nothing new", seconds(done["again_seconds"]), ""],
        [f"take {BATCH}", seconds(done["take_seconds"]), ""],
        ["submit one answer", seconds(done["submit_seconds"]), ""],
        ["limit for an answer", seconds(LIMIT_ANSWER_SECONDS), ""],
        ["undo", seconds(done["undo_seconds"]), ""],
        ["progress", seconds(done["progress_seconds"]), ""],
        [f"pull {answers:,} answers", seconds(done["pull_seconds"]), ""],
    ]
    return Table(
        title="review queue",
        columns=["", "time", "peak memory"],
        rows=rows,
        notes=[
            f"A label of every image is asked about; {LABELS_AN_IMAGE} labels an image, each with a mask of 150 bytes, "
            "1,000 images a shard on local disk. The workspace is made up before.",
            "Take, submit, undo and progress are medians of one reviewer; an answer is on mongod's disk when submit "
            "returns.",
            "Peak memory is that of the whole process, Python and its imports included; mongod is another process.",
            "Other work ran on the machine meanwhile, so times are above what it takes alone.",
        ],
        figures=done,
    )


def _ask(campaign: str) -> int:
    """Plan a question about the first label of every image; returns how many."""
    import numpy as np

    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.schemas.reviews import ReviewPlan
    from vouch_labels.tasks.certify.data import read_run_reviews
    from vouch_labels.tasks.certify.questions import label_tasks
    from vouch_labels.tasks.reviews.plans import write_plan

    reviews = read_run_reviews(load_campaign(Path(campaign)))
    rows = np.unique(reviews.labels.image_index, return_index=True)[1]
    scores = np.full(reviews.labels.count, np.nan)
    tasks = label_tasks(reviews.labels, rows, "doubtful", scores, reviews.answers)
    plan = ReviewPlan(
        number=1, run=reviews.run, created="2026-01-01T00:00:00+00:00", inputs=reviews.current.inputs, precision=0.95,
        confidence=0.9, gate="delivered", seed=0, fit_share=0.3, counts={}, seconds=0, tasks_sha256="",
    )  # fmt: skip
    write_plan(reviews.workspace, reviews.run, plan, tasks)
    return int(tasks.num_rows)


def _review(campaign: str, folder: str, answers: int) -> dict[str, float]:
    """Fill, answer, pull; seconds of each."""
    from time import perf_counter

    from vouch_labels.review_ui.queue.database import mongod
    from vouch_labels.review_ui.queue.fill import fill_queue
    from vouch_labels.review_ui.queue.queue import Queue
    from vouch_labels.review_ui.queue.sync import pull_queue
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.bench.timing import peak_bytes, peak_bytes_of_children
    from vouch_labels.tasks.store.open import open_store

    config = load_campaign(Path(campaign))
    with mongod(Path(folder)) as uri:
        start = perf_counter()
        filled = fill_queue(config, uri)
        found: dict[str, float] = {"fill_seconds": perf_counter() - start}
        found |= {"fill_bytes": peak_bytes(), "mongod_bytes": peak_bytes_of_children(), "questions": filled.added}
        start = perf_counter()
        fill_queue(config, uri)
        found["again_seconds"] = perf_counter() - start
        with Queue.open(uri, filled.queue) as queue:
            found |= _answer(queue, answers)
        start = perf_counter()
        pulled = pull_queue(uri, filled.queue, open_store(config.workspace))
        found |= {"pull_seconds": perf_counter() - start, "pulled": pulled.verdicts}
    return found


def _answer(queue: "Queue", answers: int) -> dict[str, float]:
    """Answer in batches; the median seconds of each step."""
    from statistics import median
    from time import perf_counter

    from vouch_labels.review_ui.queue.status import progress

    times: dict[str, list[float]] = {"take": [], "submit": [], "undo": [], "progress": []}

    def timed(name: str, start: float) -> None:
        times[name].append(perf_counter() - start)

    for _ in range(answers // BATCH):
        start = perf_counter()
        items = queue.take("reviewer", BATCH)
        timed("take", start)
        for item in items:
            start = perf_counter()
            queue.submit("reviewer", item.id, item.epoch, [{"label_id": item.label_id, "verdict": "correct"}], 1.6)
            timed("submit", start)
        start = perf_counter()
        progress(queue, "reviewer")
        timed("progress", start)
        start = perf_counter()
        again = queue.undo("reviewer")
        timed("undo", start)
        if again is not None:
            queue.submit("reviewer", again.id, again.epoch, [{"label_id": again.label_id, "verdict": "correct"}], 1.6)
    return {f"{name}_seconds": median(values) for name, values in times.items()}

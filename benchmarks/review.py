"""The review: filling a queue of 10,000 questions, what each step costs a reviewer, and how fast the App is."""

import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.campaigns import Options, write_campaign
from benchmarks.harness import Table, in_child, mebibytes, peak_bytes_of_children, seconds
from benchmarks.routing.size import CLASSES as RUN_CLASSES
from benchmarks.routing.size import make_workspace
from vouch_labels.schemas.errors import UserError

if TYPE_CHECKING:
    import httpx
    from playwright.sync_api import Browser, BrowserContext, Page
    from starlette.testclient import TestClient

    from vouch_labels.review_ui.queue.queue import Queue

IMAGES: Final = 10_000
LABELS_AN_IMAGE: Final = 10
BATCH: Final = 25
LIMIT_FILL_SECONDS: Final = 180.0
LIMIT_BYTES: Final = 3 << 29
LIMIT_ANSWER_SECONDS: Final = 0.15
CLASSES: Final = ("bicycle", "bus", "car", "cat", "dog", "person", "traffic light", "truck")
WIDTH: Final = 1280
HEIGHT: Final = 960
QUEUE: Final = "0123456789ab"
ANSWERS: Final = 500
REVIEWER: Final = "simulated"
GUARDED: Final = "guarded_"
_EVERY: Final = 10
"""One answer in so many is another than correct, of each other kind."""
ITEMS: Final = 10_000
OPENINGS: Final = 9
APP_ANSWERS: Final = 20
"""Less than a batch."""
LIMIT_OPEN_SECONDS: Final = 2.0
CHROMIUM: Final = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")
_PAINTED: Final = """() => document.querySelector('[data-cy=lighter-sample-image]')
    && document.querySelector('#vouch-line b') && !document.querySelector('#vouch-cover')"""
"""The first item's picture with its question; the cover goes when the App has painted it."""
_LOADED: Final = "() => performance.now() - performance.getEntriesByType('navigation')[0].loadEventEnd"
_NEXT: Final = """async () => {
    const start = performance.now();
    const before = document.querySelector('[data-cy=lighter-sample-image]');
    window.dispatchEvent(new KeyboardEvent('keydown', { code: 'Enter', altKey: true, cancelable: true }));
    const renderer = () => document.querySelector('[data-cy=lighter-sample-renderer]')?.style.visibility;
    for (;;) {
        await new Promise((done) => requestAnimationFrame(done));
        const image = document.querySelector('[data-cy=lighter-sample-image]');
        if (image && image !== before && image.complete && image.naturalWidth && renderer() === 'visible') break;
    }
    return performance.now() - start;
}"""
"""From the key to the next item's picture on the screen; the App makes an image of its own for each."""


def measure_queue(options: Options) -> Table:
    """Fill a queue with a question about every image, then review some of it as a reviewer does."""
    images, answers = (300, 50) if options.quick else (IMAGES, 500)
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        campaign = str(write_campaign(Path(folder), Path(folder), classes=list(RUN_CLASSES)))
        in_child(make_workspace, campaign=campaign, labels=images * LABELS_AN_IMAGE, labels_an_image=LABELS_AN_IMAGE)
        in_child(_ask, campaign=campaign)
        done = in_child(_review_queue, campaign=campaign, folder=f"{folder}/mongod", answers=answers).value
    rows = [
        [f"fill with {images:,} questions", seconds(done["fill_seconds"]), mebibytes(done["fill_bytes"])],
        ["mongod meanwhile", "", mebibytes(done["mongod_bytes"])],
        [f"limit for {IMAGES:,}", seconds(LIMIT_FILL_SECONDS), mebibytes(LIMIT_BYTES)],
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


def _review_queue(campaign: str, folder: str, answers: int) -> dict[str, float]:
    """Fill, answer, pull; seconds of each."""
    from time import perf_counter

    from vouch_labels.review_ui.queue.answers import pull_queue
    from vouch_labels.review_ui.queue.database import mongod
    from vouch_labels.review_ui.queue.fill import fill_queue
    from vouch_labels.review_ui.queue.queue import Queue
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.bench.timing import peak_bytes
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
            found |= _answer_batches(queue, answers)
        start = perf_counter()
        pulled = pull_queue(uri, filled.queue, open_store(config.workspace))
        found |= {"pull_seconds": perf_counter() - start, "pulled": pulled.verdicts}
    return found


def _answer_batches(queue: "Queue", answers: int) -> dict[str, float]:
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


def fill_made_queue(uri: str, count: int) -> None:
    """Make up a queue of so many labels with masks, two an image."""
    import numpy as np

    from vouch_labels.review_ui.queue.database import SCHEMA, QueueStore, connect, make_indices
    from vouch_labels.review_ui.queue.documents import Writer
    from vouch_labels.review_ui.queue.reasons import QuestionDetails, Task
    from vouch_labels.schemas.reviews import VERDICTS
    from vouch_labels.tasks.boxes_masks import rle_of_crop
    from vouch_labels.tasks.labels.records import ExportImage, ExportLabel
    from vouch_labels.tasks.reviews.overlay import HumanLabel

    database = connect(uri)
    make_indices(database)
    said = {"_id": QUEUE, "schema": SCHEMA, "run": "main", "classes": list(CLASSES), "lease_ms": 3_600_000, "seq": 0}
    database.queues.insert_one(said)
    y, x = np.ogrid[-1:1:300j, -1:1:400j]
    images: list[ExportImage] = []
    tasks = []
    for number in range(count):
        key, label_id, name = f"{number // 2:05d}.jpg", f"{number:024x}", CLASSES[number % len(CLASSES)]
        left = 100 + 500 * (number % 2)
        rle = rle_of_crop(x**2 + y**2 < 1, left, 200, HEIGHT, WIDTH)
        box = (float(left), 200.0, left + 400.0, 500.0)
        label = ExportLabel(label_id, name, box, rle, 0, 0.5, None, "review", "0")
        if number % 2:
            images[-1].labels.append(label)
        else:
            images.append(ExportImage(key, WIDTH, HEIGHT, [label]))
        tasks.append(Task(label_id, number, 1, "doubtful", "label", key, name, label_id, box, 1.6))
    word = HumanLabel.of(VERDICTS.empty_table(), CLASSES)
    Writer(QueueStore.read(database, QUEUE), word, QuestionDetails(), lambda _item, _purpose: 1).write(images, tasks)
    database.close()


@contextmanager
def served_queue(uri: str, folder: Path, reviewer: str) -> Iterator[str]:
    """Serve the queue to one reviewer, behind the guard; gives the address that opens the session.

    Args:
        uri: mongodb:// address, with the queue.
        folder: For the campaign, its images (`images`) and logs.
        reviewer: Who.
    """
    from benchmarks.campaigns import write_campaign
    from vouch_labels.review_ui.server.mongod import DatabaseUse
    from vouch_labels.review_ui.server.serve import ServeOptions, served
    from vouch_labels.schemas.campaign_file import load_campaign

    (folder / "images").mkdir(exist_ok=True)
    file = write_campaign(folder, folder / "images", classes=list(CLASSES), review={"batch": BATCH})
    campaign = load_campaign(file)
    token, options = secrets.token_urlsafe(16), ServeOptions(reviewers=(reviewer,))
    with served(campaign, QUEUE, DatabaseUse(uri, lambda: False), options, {reviewer: token}, folder / "logs") as found:
        yield f"http://127.0.0.1:{found[0].port}/?token={token}"


def measure_operators(options: Options) -> Table:
    """Fill a queue, and answer items as the browser asks the server to."""
    answers = 50 if options.quick else ANSWERS
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        done = in_child(_review_by_operators, folder=folder, answers=answers).value
    names = [name.removesuffix("_median") for name in done if name.endswith("_median")]
    own = [name for name in names if not name.startswith(GUARDED)]
    rows = [[name, *(seconds(done[f"{who}{name}_{what}"]) for who in (GUARDED, "") for what in ("median", "p95"))]
            for name in own]  # fmt: skip
    rows.append(["limit for an item", seconds(LIMIT_ANSWER_SECONDS), "", seconds(LIMIT_ANSWER_SECONDS), ""])
    return Table(
        title="review operators",
        columns=["", "behind the guard", "95th percentile", "in process", "95th percentile"],
        rows=rows,
        notes=[
            f"{answers} labels with masks on images of {WIDTH} x {HEIGHT} in batches of {BATCH}, answered one after "
            f"the other: most as shown, one in {_EVERY} each not an object, wrong class, bad box, skipped, and undone "
            "and answered again.",
            "A request as the browser sends it. Behind the guard: over the loopback interface to a server as "
            "`vouch review` starts it. In process: to FiftyOne's application itself, no network and no guard.",
            "An item is its answer, and its share of what taking its batch takes.",
            "Other work ran on the machine meanwhile, so times are above what it takes alone.",
        ],
        figures=done,
    )


def _review_by_operators(folder: str, answers: int) -> dict[str, float]:
    from vouch_labels.review_ui.queue.database import mongod
    from vouch_labels.review_ui.server.process import server_environment

    with mongod(Path(folder) / "mongod") as uri:
        fill_made_queue(uri, 4 * answers)
        with served_queue(uri, Path(folder), f"{GUARDED}{REVIEWER}") as address:
            guarded = _drive_guarded(address, answers)
        os.environ.update(server_environment(os.environ, uri, QUEUE, REVIEWER, BATCH))
        times = {f"{GUARDED}{name}": found for name, found in guarded.items()} | _drive_in_process(answers)
    return {f"{name}_{what}": value for name, found in times.items() for what, value in _summary(found).items()}


def _drive_guarded(address: str, answers: int) -> dict[str, list[float]]:
    import httpx

    site = address.partition("/?")[0]
    with httpx.Client(base_url=site, headers={"origin": site}, timeout=600) as client:
        client.get(address.removeprefix(site))  # becomes a cookie
        return _drive(client, None, answers)


def _drive_in_process(answers: int) -> dict[str, list[float]]:
    import fiftyone.server.app
    from starlette.testclient import TestClient

    from vouch_labels.review_ui.plugin.operators import review_session

    with TestClient(fiftyone.server.app.app) as client:
        return _drive(client, review_session().name, answers)


def _drive(client: "httpx.Client | TestClient", dataset: str | None, answers: int) -> dict[str, list[float]]:
    """Take batches and answer them; gives the times of each operator."""
    times: dict[str, list[float]] = {name: [] for name in ("item", "take_batch", "submit", "reject", "wrong_class")}
    times |= {name: [] for name in ("bad_box", "skip", "undo")}

    def call(name: str, **params: object) -> dict[str, Any]:
        body = {"operator_uri": f"@vouch/review/{name}", "dataset_name": dataset, "params": params}
        start = time.perf_counter()
        answer = client.post("/operators/execute", json=body)
        times[name].append(time.perf_counter() - start)
        said: dict[str, Any] = answer.raise_for_status().json()["result"]
        if said.get("error"):
            raise RuntimeError(said["error"])
        return said

    call("take_batch")
    for found in times.values():
        found.clear()  # the first request imports plugins
    while len(times["item"]) < answers:
        start = time.perf_counter()
        items = call("take_batch")["items"]
        share = (time.perf_counter() - start) / len(items)
        for number, item in enumerate(items):
            times["item"].append(share + _answer(call, item, len(times["item"]) + number))
    return times


def _answer(call: Callable[..., dict[str, Any]], item: dict[str, Any], number: int) -> float:
    """Answer an item; gives the seconds that it took."""
    start = time.perf_counter()
    other = next(name for name in CLASSES if name != item["class_name"])
    asked = {"item": item["item"], "seconds": 1.5}
    match number % _EVERY:
        case 1:
            call("reject", **asked)
        case 2:
            call("wrong_class", **asked, class_name=other)
        case 3:
            call("bad_box", **asked)
        case 4:
            call("skip", **asked)
        case 5:
            call("submit", **asked)
            call("undo")
            call("submit", **asked)
        case _:
            call("submit", **asked)
    return time.perf_counter() - start


def _summary(found: list[float]) -> dict[str, float]:
    quantiles = statistics.quantiles(found, n=20) if len(found) > 1 else found
    return {"median": statistics.median(found), "p95": quantiles[-1]}


def measure_app(options: Options) -> Table:
    """Serve a long queue, open it again and again, and answer a batch.

    Raises:
        UserError: There is no Chromium.
    """
    if not Path(CHROMIUM).exists():
        raise UserError(f"there is no {CHROMIUM}; install chromium, or name it in CHROMIUM")
    items, openings = (500, 2) if options.quick else (ITEMS, OPENINGS)
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        done = in_child(_review_in_app, folder=folder, items=items, openings=openings).value
    return Table(
        title="review app",
        columns=["", "median", "longest"],
        rows=[
            [
                "address to the first picture and its question",
                seconds(done["open_median"]),
                seconds(done["open_longest"]),
            ],
            ["the same from the App's load", seconds(done["loaded_median"]), seconds(done["loaded_longest"])],
            ["limit for that", seconds(LIMIT_OPEN_SECONDS), ""],
            ["key to the next item's picture", seconds(done["next_median"]), seconds(done["next_longest"])],
        ],
        notes=[
            f"{items:,} labels with masks wait in the queue; the first opening takes {BATCH} of them.",
            f"JPEGs of {WIDTH} x {HEIGHT}. "
            f"Chromium without a screen or a GPU, 1400 x 860, from the same machine through the guard. {openings} "
            f"openings, each of a fresh profile without a cache; {APP_ANSWERS} answers.",
        ],
        figures=done,
    )


def _review_in_app(folder: str, items: int, openings: int) -> dict[str, float]:
    from vouch_labels.review_ui.queue.database import mongod

    with mongod(Path(folder) / "mongod") as uri:
        fill_made_queue(uri, items)
        _draw_images(Path(folder) / "images")
        with served_queue(uri, Path(folder), "simulated") as address, _browser() as browser:
            opened, loaded = zip(*(_open(browser, address) for _ in range(openings)), strict=True)
            following = _answer_in_app(browser, address)
    return {
        "open_median": statistics.median(opened), "open_longest": max(opened),
        "loaded_median": statistics.median(loaded), "loaded_longest": max(loaded),
        "next_median": statistics.median(following), "next_longest": max(following),
    }  # fmt: skip


def _draw_images(folder: Path) -> None:
    """Write the images of a batch, two items each: clouds, of some 100 KB."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    for number in range(BATCH // 2 + 1):
        rough = np.random.default_rng(number).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(rough).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg")


@contextmanager
def _browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def _page(browser: "Browser") -> "Iterator[Page]":
    context: BrowserContext = browser.new_context(viewport={"width": 1400, "height": 860})
    page = context.new_page()
    page.set_default_timeout(600_000)
    yield page
    context.close()


def _open(browser: "Browser", address: str) -> tuple[float, float]:
    """Seconds from the address, and from the load event of the App's page, to what people work with."""
    with _page(browser) as page:
        start = time.perf_counter()
        page.goto(address, wait_until="commit")
        page.wait_for_function(_PAINTED)
        return time.perf_counter() - start, page.evaluate(_LOADED) / 1000


def _answer_in_app(browser: "Browser", address: str) -> list[float]:
    """Seconds from one answer to the next item, each."""
    found = []
    with _page(browser) as page:
        page.goto(address)
        page.wait_for_function(_PAINTED)
        page.keyboard.press("?")
        for _ in range(APP_ANSWERS):
            page.wait_for_selector("[data-cy=annotate-edit-back]")
            page.wait_for_timeout(1500)  # as long as people look at it
            found.append(page.evaluate(_NEXT) / 1000)
    return found

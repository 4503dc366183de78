"""What an item costs beside the reviewer's own time: a simulated one answers 500 through the operators of the App."""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.harness.child import in_child
from benchmarks.harness.table import Table
from benchmarks.harness.words import seconds
from benchmarks.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWERS: Final = 500
CLASSES: Final = ("bicycle", "bus", "car", "cat", "dog", "person", "traffic light", "truck")
WIDTH: Final = 1280
HEIGHT: Final = 960
QUEUE: Final = "0123456789ab"
BATCH: Final = 25
LIMIT_SECONDS: Final = 0.15
REVIEWER: Final = "simulated"
_EVERY: Final = 10
"""One answer in so many is another than correct, of each other kind."""


def measure(options: Options) -> Table:
    """Fill a queue, and answer items as the browser asks the server to."""
    answers = 50 if options.quick else ANSWERS
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        done = in_child(_review, folder=f"{folder}/mongod", answers=answers).value
    names = [name.removesuffix("_median") for name in done if name.endswith("_median")]
    rows = [[name, seconds(done[f"{name}_median"]), seconds(done[f"{name}_p95"])] for name in names]
    rows.append(["limit for an item", seconds(LIMIT_SECONDS), ""])
    return Table(
        title="review operators",
        columns=["", "median", "95th percentile"],
        rows=rows,
        notes=[
            f"{answers} labels with masks on images of {WIDTH} x {HEIGHT} in batches of {BATCH}, answered one after "
            f"the other: most as shown, one in {_EVERY} each not an object, wrong class, bad box, skipped, and undone "
            "and answered again.",
            "A request as the browser sends it, to FiftyOne's application within this process: no network, no guard, "
            "no browser. An item is its answer, and its share of what taking its batch takes.",
            "Other work ran on the machine meanwhile, so times are above what it takes alone.",
        ],
        figures=done,
    )


def _review(folder: str, answers: int) -> dict[str, float]:
    from review_ui.database import mongod
    from review_ui.server.environment import server_environment

    with mongod(Path(folder)) as uri:
        _fill(uri, 2 * answers)
        os.environ.update(server_environment(os.environ, uri, QUEUE, REVIEWER, BATCH))
        times = _drive(answers)
    return {f"{name}_{what}": value for name, found in times.items() for what, value in _summary(found).items()}


def _fill(uri: str, count: int) -> None:
    """Make up a queue of so many labels, two an image."""
    import numpy as np

    from review_ui.queue.asked import Task
    from review_ui.queue.connect import SCHEMA, connect, make_indices
    from review_ui.queue.session import open_session
    from review_ui.queue.signals import Told
    from review_ui.queue.write import Writer
    from schemas.reviews import VERDICTS
    from tasks.collect.reviewed import HumanWord
    from tasks.export.records import ExportImage, ExportLabel
    from tasks.rle import rle_of_crop

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
    word = HumanWord.of(VERDICTS.empty_table(), CLASSES)
    Writer(open_session(database, QUEUE), word, Told(), lambda _item, _kind: 1).write(images, tasks)
    database.close()


def _drive(answers: int) -> dict[str, list[float]]:
    import fiftyone.server.app
    from starlette.testclient import TestClient

    from review_ui.plugin.seat import desk

    at = desk()
    times: dict[str, list[float]] = {name: [] for name in ("item", "take_batch", "submit", "reject", "wrong_class")}
    times |= {name: [] for name in ("bad_box", "skip", "undo")}
    with TestClient(fiftyone.server.app.app) as client:

        def call(name: str, **params: object) -> dict[str, Any]:
            body = {"operator_uri": f"@vouch/review/{name}", "dataset_name": at.name, "params": params}
            start = time.perf_counter()
            answer = client.post("/operators/execute", json=body)
            times[name].append(time.perf_counter() - start)
            said: dict[str, Any] = answer.json()["result"]
            if said.get("error"):
                raise RuntimeError(said["error"])
            return said

        call("take_batch")
        for found in times.values():
            found.clear()  # the first request imports plugins
        while len(times["item"]) < answers:
            start = time.perf_counter()
            cards = call("take_batch")["cards"]
            share = (time.perf_counter() - start) / len(cards)
            for number, card in enumerate(cards):
                times["item"].append(share + _answer(call, card, len(times["item"]) + number, at.classes))
    return times


def _answer(
    call: "Callable[..., dict[str, Any]]", card: dict[str, Any], number: int, classes: tuple[str, ...]
) -> float:
    """Answer an item; gives the seconds that it took."""
    start = time.perf_counter()
    other = next(name for name in classes if name != card["class_name"])
    asked = {"item": card["item"], "seconds": 1.5}
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

"""What an item costs beside the reviewer's own time: a simulated one answers 500 through the operators of the App."""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.campaigns import Options
from benchmarks.harness import Table, in_child, seconds
from benchmarks.review_made_queue import BATCH, CLASSES, HEIGHT, QUEUE, WIDTH, fill_made_queue, served_queue

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    from starlette.testclient import TestClient

ANSWERS: Final = 500
LIMIT_SECONDS: Final = 0.15
REVIEWER: Final = "simulated"
GUARDED: Final = "guarded_"
_EVERY: Final = 10
"""One answer in so many is another than correct, of each other kind."""


def measure(options: Options) -> Table:
    """Fill a queue, and answer items as the browser asks the server to."""
    answers = 50 if options.quick else ANSWERS
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        done = in_child(_review, folder=folder, answers=answers).value
    names = [name.removesuffix("_median") for name in done if name.endswith("_median")]
    own = [name for name in names if not name.startswith(GUARDED)]
    rows = [[name, *(seconds(done[f"{who}{name}_{what}"]) for who in (GUARDED, "") for what in ("median", "p95"))]
            for name in own]  # fmt: skip
    rows.append(["limit for an item", seconds(LIMIT_SECONDS), "", seconds(LIMIT_SECONDS), ""])
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


def _review(folder: str, answers: int) -> dict[str, float]:
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


def _answer(call: "Callable[..., dict[str, Any]]", item: dict[str, Any], number: int) -> float:
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

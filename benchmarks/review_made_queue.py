"""Makes up a review queue in which every label waits, and serves it as `vouch review` does."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CLASSES: Final = ("bicycle", "bus", "car", "cat", "dog", "person", "traffic light", "truck")
WIDTH: Final = 1280
HEIGHT: Final = 960
QUEUE: Final = "0123456789ab"
BATCH: Final = 25


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

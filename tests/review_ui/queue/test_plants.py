"""Known-wrong labels in the queue: nothing of them tells that they were planted."""

import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as mask_utils

from review_ui.queue.connect import connect
from schemas.reviews import VERDICTS, ReviewPlan
from tasks.certify.data import read_run_reviews
from tasks.certify.questions import class_by_class, label_tasks, plant
from tasks.reviews.plans import write_plan
from tasks.reviews.verdicts import write_verdicts


@pytest.fixture
def planted(planned):
    """The campaign with a second plan: twenty plants among the labels that have no answer yet; and these plants."""
    (first, _) = read_run_reviews(planned.campaign).plans[0]
    labels = read_run_reviews(planned.campaign).labels
    ids = labels.label_ids.to_pylist()[::2]
    row = dict.fromkeys(VERDICTS.names) | {"verdict": "correct", "reviewer": "eve", "simulated": False}
    write_verdicts(planned.workspace, pa.Table.from_pylist([row | {"label_id": one} for one in ids], schema=VERDICTS))
    reviews = read_run_reviews(planned.campaign)
    scores, rng = np.full(labels.count, 0.9), np.random.default_rng(0)
    plants = plant(reviews, scores, 0.5, 20, rng, routed=False)
    others = label_tasks(labels, np.arange(1, labels.count, 2), "doubtful", scores, reviews.answers)
    write_plan(
        planned.workspace, "main", ReviewPlan.model_validate(first.model_dump()), class_by_class([plants, others], rng)
    )
    return planned, plants


def test_the_label_that_a_plant_was_made_from_is_not_beside_it(planted, uri):
    planned, plants = planted
    labels = read_run_reviews(planned.campaign).labels
    classes = dict(zip(labels.label_ids.to_pylist(), labels.class_index.tolist(), strict=True))
    with planned.open() as queue:
        items = {item.id: item for item in queue.take("ann", 1000)}
    database = connect(uri)
    hidden = {one["item"]: one["hide"] for one in database.items.find({"purpose": "plant"})}
    database.close()
    swapped = cut = 0
    for task in plants.to_pylist():
        item = items[task["label_id"]]
        source = hidden[item.id]
        assert source in classes
        assert source not in {label.label_id for label in item.others}
        same = [label for label in item.others if np.allclose(label.box, item.box)]
        assert same == []
        if labels.class_names[classes[source]] != item.class_name:
            swapped += 1
            assert item.class_name not in item.words.replace("the models agree", "")
        else:
            cut += 1
            inside = mask_utils.decode({"size": [item.height, item.width], "counts": item.rle})
            rows, columns = np.nonzero(inside)
            x0, y0, x1, y1 = item.box
            assert columns.min() >= np.floor(x0)
            assert columns.max() < np.ceil(x1)
            assert rows.min() >= np.floor(y0)
            assert rows.max() < np.ceil(y1)
    assert min(swapped, cut) > 3


def test_plants_look_like_any_other_label(planted):
    planned, plants = planted
    ids = set(plants["label_id"].to_pylist())
    with planned.open() as queue:
        items = [item for item in queue.take("ann", 1000) if item.kind == "label"]
    mine, others = ([item for item in items if (item.id in ids) is planted] for planted in (True, False))
    assert len(mine) == len(ids)
    assert all(item.rle for item in mine)
    assert all(item.words for item in mine)
    assert {len(item.id) for item in mine} == {len(item.id) for item in others}
    assert {item.seconds for item in mine} == {item.seconds for item in others}
    assert {label.model_dump_json() for item in mine for label in item.others if label.label_id in ids} == set()

"""Verdict files and tasks after a class was renamed: people see the new name, and may write either."""

import csv

from tests.fake_campaign import draw_images, label, write_campaign
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.reviews.import_verdicts import import_files
from vouch_labels.tasks.reviews.open_tasks import campaign_figures, task_sheet
from vouch_labels.tasks.reviews.verdicts import read_verdicts
from vouch_labels.tasks.store.open import open_store


def test_tasks_show_the_new_name_and_files_may_have_either(tmp_path):
    draw_images(tmp_path, 40)
    label(write_campaign(tmp_path, classes=["cat", "dog"]))
    campaign = write_campaign(tmp_path, classes=["cat", {"name": "hound", "was": "dog"}])
    label(campaign)
    plan_reviews(campaign, ReviewRequest(minutes=5))
    rows = task_sheet(campaign).to_pylist()
    assert {row["shown_class"] for row in rows} == {"cat", "hound"}
    cats = [row["label_id"] for row in rows if row["shown_class"] == "cat"][:2]
    hounds = [row["label_id"] for row in rows if row["shown_class"] == "hound"][:1]
    path = tmp_path / "answers.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["label_id", "verdict", "class_name"])
        out.writerows([[cats[0], "wrong_class", "hound"], [cats[1], "wrong_class", "dog"]])
        out.writerow([hounds[0], "correct", "hound"])
    (outcome,) = import_files(campaign, [path], "ann")
    assert (outcome.imported, outcome.unknown_labels) == (3, 0)
    verdicts = read_verdicts(open_store(campaign.workspace))
    assert sorted(verdicts["class_name"].drop_null().to_pylist()) == ["dog", "dog"]
    assert campaign_figures(campaign).classes["hound"] == {"correct": 1}

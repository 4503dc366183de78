"""What a review prepares before it serves: the next stage is planned when its own reviewers have nothing left."""

import pytest

from vouch_labels.flows.review import _prepare, announcement
from vouch_labels.review_ui.queue.database import mongod
from vouch_labels.review_ui.queue.fill import fill_queue
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.queue.status import left_for
from vouch_labels.review_ui.server.mongod import review_database
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.reviews.plans import read_plans
from vouch_labels.tasks.store.open import open_store


@pytest.fixture
def campaign(make_images, make_campaign, label, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    make_images(tmp_path / "images", 60)
    found = make_campaign(routing={"precision": 0.7, "confidence": 0.8}, review={"second_reviews": 0.5})
    label(found)
    return found


@pytest.mark.mongod
def test_what_waits_for_a_second_person_does_not_keep_the_next_stage_back(campaign, tmp_path, monkeypatch):
    with mongod(tmp_path / "db") as uri:
        monkeypatch.setenv("VOUCH_MONGODB_URI", uri)
        plan_reviews(campaign, ReviewRequest(minutes=3))
        queue = fill_queue(campaign, uri).queue
        with Queue.open(uri, queue) as opened:
            for item in opened.take("ann", 1000):
                row = {"key": item.key, "label_id": item.label_id, "verdict": "correct"}
                opened.submit("ann", item.id, item.epoch, [row], 1.0)
            waiting = left_for(opened, ["ann"]).second
            assert waiting > 0
            with review_database(campaign) as database:
                said: list[str] = []
                _prepare(campaign, queue, database, ["ann", "bob"], 10, said.append)
                assert len(read_plans(open_store(campaign.workspace), campaign.run.name)) == 1
                assert said[-1] == f"{waiting} items are in the queue, 0 of them new"
                _prepare(campaign, queue, database, ["ann"], 10, said.append)
            assert len(read_plans(open_store(campaign.workspace), campaign.run.name)) == 2
            assert any(line.startswith(f"{waiting} items wait for a second person") for line in said)
            assert opened.take("ann", 1)


def test_reviewers_get_their_address_and_every_key():
    lines = announcement({"ann": "http://127.0.0.1:5151/?token=x"}, has_own_tokens=False)
    assert lines[0] == "ann: http://127.0.0.1:5151/?token=x"
    for key in ("T", "Enter", "1", "B", "N", "M", "D", "G", "S", "Z"):
        assert any(f"Alt+{key} " in line for line in lines)
    assert "each page asks for the reviewer's own token" in announcement({}, has_own_tokens=True)

"""The flow that takes up people's answers: pulled, certified, applied; what comes too early is said."""

import pytest

from flows.environment import prepare_environment
from flows.markdown import applied_reviews_markdown
from review_ui.queue.database import mongod
from review_ui.queue.fill import fill_queue
from review_ui.queue.queue import Queue
from tasks.certify.plan_reviews import Wish, plan_reviews

prepare_environment()


@pytest.fixture
def campaign(make_images, make_campaign, label, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("VOUCH_MONGODB_URI", raising=False)
    make_images(tmp_path / "images", 60)
    found = make_campaign(routing={"precision": 0.7, "confidence": 0.8}, run={"shard_size": 30, "retry_delay_s": 0})
    label(found)
    return found


def answer(campaign, uri):
    """Answer all that is asked, as a person would by the desk."""
    with Queue.open(uri, fill_queue(campaign, uri).queue) as queue:
        while items := queue.take("ann", 200):
            for item in items:
                row = {"key": item.key, "label_id": item.label_id, "verdict": "correct"}
                queue.submit("ann", item.id, item.epoch, [row], 1.0)


def test_without_a_queue_nothing_is_pulled_and_nothing_fails(campaign):
    from flows.apply_reviews import pull_and_apply

    found = pull_and_apply(campaign)
    assert (found.pulled, found.certified, found.applied) == (None, None, None)
    assert "vouch review begins one" in found.words[0]
    assert "there are no verdicts" in found.words[1]


@pytest.mark.mongod
def test_from_answers_to_decisions(campaign, tmp_path, monkeypatch):
    from flows.apply_reviews import pull_and_apply

    with mongod(tmp_path / "db") as uri:
        monkeypatch.setenv("VOUCH_MONGODB_URI", uri)
        plan_reviews(campaign, Wish(minutes=3))
        answer(campaign, uri)
        first = pull_and_apply(campaign)
        assert first.pulled is not None
        assert first.pulled.verdicts >= 50
        assert first.applied is None
        assert "no certification sample was drawn" in first.words[0]
        plan_reviews(campaign, Wish(minutes=30))
        answer(campaign, uri)
        second = pull_and_apply(campaign)
        assert second.certified is not None
        assert second.applied is not None
        assert second.applied.policy == second.certified.version
        assert second.applied.accepted > 0
        assert second.applied.export is not None
        again = pull_and_apply(campaign)
        assert again.pulled is not None
        assert again.pulled.verdicts == 0
        assert again.certified == second.certified.model_copy(update={"in_force": True})
        assert again.applied is not None
        assert again.applied.changed == 0
    text = applied_reviews_markdown(second)
    assert "new verdicts of" in text
    assert "are decided otherwise, by policy certified" in text

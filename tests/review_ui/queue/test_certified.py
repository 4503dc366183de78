"""While people review, the queue says what their answers certify so far."""

import re

import pytest

from tests.fake_campaign import draw_images, label, write_campaign
from vouch_labels.review_ui.queue.answers import pull_queue
from vouch_labels.review_ui.queue.fill import fill_queue, queue_id
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.queue.status import progress, queue_status
from vouch_labels.tasks.certify.certify import certify_campaign
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.store.open import open_store


def _answer(queue, rows, count):
    """Every 30th is no object."""
    for place, item in enumerate(queue.take("ann", count)):
        queue.submit("ann", item.id, item.epoch, rows(item, "not_an_object" if place % 30 == 29 else "correct"), 1.0)


@pytest.fixture
def campaign(tmp_path):
    draw_images(tmp_path, 180)
    found = write_campaign(tmp_path, routing={"precision": 0.8, "confidence": 0.8, "gate": "accepted"})
    label(found)
    return found


def test_the_queue_says_what_is_certified_so_far_and_certify_says_the_same(campaign, uri, rows):
    workspace = open_store(campaign.workspace)
    plan_reviews(campaign, ReviewRequest(minutes=2))
    with Queue.open(uri, fill_queue(campaign, uri).queue) as queue:
        assert progress(queue, "ann").certified is None, "labels to fit to certify nothing"
        _answer(queue, rows, 100)
    pull_queue(uri, queue_id(campaign), workspace)
    sample = sum(plan_reviews(campaign, ReviewRequest(minutes=11)).plan.counts.values())
    with Queue.open(uri, fill_queue(campaign, uri).queue) as queue:
        assert progress(queue, "ann").certified == "nothing is certified at 0.8 yet"
        found = []
        for count in (150, sample - 150):
            _answer(queue, rows, count)
            pull_queue(uri, queue_id(campaign), workspace)
            certified = certify_campaign(campaign)
            found.append(progress(queue, "bob").certified)
            share = re.match(r"certified at 0\.8 for ([0-9.]+)% of the labels", found[-1])
            assert share, found[-1]
            if count == 150:
                covered = certified.covers[0].labels
                assert float(share[1]) == pytest.approx(100 * certified.accepted / covered, abs=0.06)
        assert queue_status(queue).certified == found[-1]
    # Filled again, the answers that are in the workspace count as well.
    with Queue.open(uri, fill_queue(campaign, uri).queue) as queue:
        assert progress(queue, "ann").certified == found[-1]

import pytest

from tasks.labels.arrays import current_of
from tasks.plan.ledger import Ledger
from tasks.reviews.image_sizes import image_sizes
from tasks.store.open import open_store


@pytest.fixture
def sizes(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 6)
    (tmp_path / "images/broken.png").write_bytes(b"no image")
    campaign = make_campaign()
    label(campaign)
    workspace = open_store(campaign.workspace)
    fingerprint = current_of(workspace, "main").fingerprint

    def look(*keys):
        with Ledger.load(workspace, "main") as ledger:
            return image_sizes(workspace, "main", ledger, fingerprint, keys)

    return look


def test_images_that_were_labelled(sizes):
    assert sizes("000.png", "005.png", "gone.png", "broken.png") == {"000.png": (96, 64), "005.png": (96, 64)}


def test_nothing_to_look_up(sizes):
    assert sizes() == {}

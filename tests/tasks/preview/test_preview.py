import numpy as np
import pytest
from PIL import Image

from schemas.errors import UserError
from tasks.preview.preview import write_preview


@pytest.fixture
def labelled(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 6)
    campaign = make_campaign()
    label(campaign)
    return campaign


def test_it_draws_some_images(labelled, tmp_path):
    path = tmp_path / "preview.png"
    assert write_preview(labelled, path, count=4, columns=2) == 4
    picture = np.asarray(Image.open(path))
    assert picture.shape[0] > picture.shape[1] * 0.9
    assert np.ptp(picture.astype(int), axis=-1).max() > 50


def test_images_that_have_gone_are_left_out(labelled, tmp_path):
    (tmp_path / "images" / "000.png").unlink()
    assert write_preview(labelled, tmp_path / "preview.png") == 5


def test_nothing_to_show_writes_nothing(labelled, tmp_path):
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    assert write_preview(labelled, tmp_path / "preview.png") == 0
    assert not (tmp_path / "preview.png").exists()


def test_mistakes(make_campaign, labelled, tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        write_preview(labelled, tmp_path / "missing" / "preview.png")
    with pytest.raises(UserError, match="no labels yet"):
        write_preview(make_campaign(run={"name": "other"}), tmp_path / "preview.png")

"""The segmenter's batches show what they say, and its loss falls."""

import numpy as np
import pytest
import torch

from vouch_labels.starter.train.architectures import segmenter_architecture
from vouch_labels.starter.train.data import SceneCache
from vouch_labels.starter.train.segmenter import new_segmenter, segmenter_image, segmenter_losses


def test_boxes_lie_around_masks_and_the_longer_side_fits(few_scenes: SceneCache) -> None:
    rng = np.random.default_rng(0)
    drawn = [segmenter_image(rng, few_scenes, index % 8, 96) for index in range(64)]
    images = [image for image in drawn if image is not None]
    assert len(images) > 40
    sizes = set()
    for image in images:
        _, height, width = image.pixels.shape
        sizes.add((height, width))
        assert max(height, width) == 96
        assert image.masks.shape == (len(image.boxes), height, width)
        assert ((image.masks == 0) | (image.masks == 1)).all()
        for box, mask in zip(image.boxes, image.masks, strict=True):
            x0, y0, x1, y1 = (round(float(value)) for value in box)
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
            # A jittered box may cut an edge, never the object.
            assert mask[y0:y1, x0:x1].sum() > 0.6 * mask.sum() > 0
    assert len(sizes) > 5


@pytest.mark.slow
def test_training_steps_lower_the_loss(few_scenes: SceneCache) -> None:
    torch.manual_seed(0)
    model = new_segmenter(segmenter_architecture(64, 32, 2)).train()
    rng = np.random.default_rng(1)
    images = [image for index in range(8) if (image := segmenter_image(rng, few_scenes, index, 64)) is not None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    values = []
    for _ in range(40):
        loss = torch.stack(list(segmenter_losses(model, images).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert np.mean(values[-5:]) < 0.75 * np.mean(values[:5])

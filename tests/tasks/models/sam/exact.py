"""The package's SAM in float64, and how far masks in float32 may be from its."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from segment_anything import SamPredictor

from tests.float_bounds import U32, Bounded, bounded, in_float64
from vouch_labels.tasks.models.registry import Masks


class WantedMasks(NamedTuple):
    """Of the boxes of one image."""

    logits: Bounded
    """(N, H, W), at the image's size."""
    iou: Bounded
    """(N,)."""
    threshold: float

    @property
    def sure(self) -> NDArray[np.bool_]:
        """Pixels whose logit rounding cannot take across the threshold."""
        found: NDArray[np.bool_] = ((self.logits.exact - self.threshold).abs() > self.logits.bound).numpy()
        return found

    def check(self, masks: Masks) -> None:
        """Assert that masks, their estimates and their stability are these but for rounding."""
        exact, bound = self.logits.exact, self.logits.bound
        sure = self.sure
        assert sure.mean() > 0.9, "a bound that leaves nothing to compare"
        np.testing.assert_array_equal(decoded(masks, *exact.shape[1:])[sure], (exact > self.threshold).numpy()[sure])
        self.iou._replace(exact=self.iou.exact.clamp(0, 1)).check(torch.from_numpy(masks.predicted_iou))

        def above(cut: float) -> NDArray[np.int64]:
            counts: NDArray[np.int64] = (exact > cut).sum((1, 2)).numpy()
            return counts

        inner, outer = self.threshold + 1, self.threshold - 1
        least = above(inner + bound) / np.maximum(above(outer - bound), 1)
        most = above(inner - bound) / np.maximum(above(outer + bound), 1)
        assert (masks.stability >= least - 2 * U32).all()
        assert (masks.stability <= most + 2 * U32).all()


def decoded(masks: Masks, height: int, width: int) -> NDArray[np.bool_]:
    """(N, height, width)."""
    rles = [{"size": [height, width], "counts": counts} for counts in masks.rle_counts]
    found: NDArray[np.bool_] = mask_utils.decode(rles).transpose(2, 0, 1).astype(bool)
    return found


def exact_sam(sam: torch.nn.Module) -> Any:
    """A model in float64 throughout; the package would narrow its coordinates."""
    exact = in_float64(sam)
    places = exact.prompt_encoder.pe_layer
    places._pe_encoding = lambda coordinates: type(places)._pe_encoding(places, coordinates.double())
    return exact


def wanted_masks(
    sam: torch.nn.Module, images: Sequence[NDArray[np.uint8]], boxes: Sequence[NDArray[np.float32]], wide: bool = True
) -> list[WantedMasks]:
    """What the package's own predictor says, for each image; in float32 where `wide` is False, for large models."""
    exact: Any = exact_sam(sam) if wide else sam
    predictor = SamPredictor(exact)
    wanted = []
    for image, prompts in zip(images, boxes, strict=True):
        scaled = torch.from_numpy(predictor.transform.apply_boxes(prompts, image.shape[:2]).astype(np.float32))
        scaled = scaled.double() if wide else scaled

        def answer(image: NDArray[np.uint8] = image, scaled: torch.Tensor = scaled) -> list[torch.Tensor]:
            predictor.set_image(image)
            logits, iou, _ = predictor.predict_torch(None, None, scaled, multimask_output=False, return_logits=True)
            return [logits[:, 0], iou[:, 0]]

        logits, iou = bounded(answer, wide=wide)
        wanted.append(WantedMasks(logits, iou, exact.mask_threshold))
    return wanted

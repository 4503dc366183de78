"""Runs GroundingDINO's forward pass with the text encoded once for all images; resizes images as the model expects."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vouch_labels.tasks.models.compile import compute_in_fp32
from vouch_labels.tasks.models.groundingdino.build import Resize
from vouch_labels.tasks.models.registry import Pixels
from vouch_labels.tasks.models.runtime import in_threads

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.groundingdino import GroundingDINO
    from groundingdino.util.misc import NestedTensor

TextFeatures = dict[str, Tensor]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def encode_text(model: "GroundingDINO", input_ids: tuple[int, ...], device: str) -> TextFeatures:
    """Run the text side up to where images come in, on the (T,) tokens of one caption.

    Returns:
        encoded_text (1, T, 256), text_token_mask (1, T), position_ids (1, T), text_self_attention_masks (1, T, T).
    """
    from groundingdino.models.GroundingDINO.bertwarper import generate_masks_with_special_tokens_and_transfer_map

    ids = torch.tensor([input_ids])
    tokens = {"input_ids": ids}
    # Loops over tokens and would wait for the device at each, hence on the CPU.
    masks, places, _ = generate_masks_with_special_tokens_and_transfer_map(tokens, model.specical_tokens, None)
    text = {
        "text_token_mask": torch.ones_like(ids, dtype=torch.bool),
        "position_ids": places,
        "text_self_attention_masks": masks,
    }
    text = {name: value.to(device) for name, value in text.items()}
    encoded = model.bert(
        input_ids=ids.to(device),
        attention_mask=text["text_self_attention_masks" if model.sub_sentence_present else "text_token_mask"],
        token_type_ids=torch.zeros_like(ids).to(device),
        position_ids=text["position_ids"] if model.sub_sentence_present else None,
    )
    return {"encoded_text": model.feat_map(encoded["last_hidden_state"]), **text}


class ReferenceForward:
    """The package's own forward pass, as tasks.models.groundingdino.fast.model.FastGroundingDino has its."""

    def __init__(self, model: "GroundingDINO") -> None:
        """Take groundingdino-py's GroundingDINO."""
        self._model = model

    def prepare(self, text: TextFeatures) -> TextFeatures:
        """Give back what `encode_text` returned."""
        return text

    def encode_images(self, images: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Run the image backbone, which no text reaches, on (B, 3, H, W) float32, normalised, nothing padded.

        Returns:
            Per level: features (B, 256, h, w), padding masks (B, h, w) that are all False, position embeddings.
        """
        from groundingdino.util.misc import NestedTensor

        def unpadded(features: Tensor) -> "NestedTensor":
            return NestedTensor(features, torch.zeros_like(features[:, 0], dtype=torch.bool))

        model = self._model
        maps, positions = model.backbone(unpadded(images))
        levels = [project(level.tensors) for project, level in zip(model.input_proj, maps, strict=False)]
        for project in model.input_proj[len(maps) :]:
            levels.append(project(maps[-1].tensors if len(levels) == len(maps) else levels[-1]))
            positions.append(model.backbone[1](unpadded(levels[-1])).to(levels[-1].dtype))
        return levels, [unpadded(level).mask for level in levels], positions

    def find(
        self, encoded: tuple[list[Tensor], list[Tensor], list[Tensor]], text: TextFeatures
    ) -> tuple[Tensor, Tensor]:
        """Let what `encode_images` returned and the text of one caption, asked of all B images, meet.

        Returns:
            Logits (B, Q, 256), -inf beyond the caption, and boxes (B, Q, 4): centre x, y, width, height in [0, 1].
        """
        from groundingdino.util.misc import inverse_sigmoid

        model = self._model
        levels, masks, positions = encoded
        batch = len(levels[0])
        # A dictionary of this call's own, because the transformer writes into it.
        texts = {name: value.expand(batch, *value.shape[1:]) for name, value in text.items()}
        states, references, *_ = model.transformer(levels, masks, None, positions, None, None, texts)
        boxes = (model.bbox_embed[-1](states[-1]) + inverse_sigmoid(references[-2])).sigmoid()
        return model.class_embed[-1](states[-1], texts), boxes


def keep_heads_exact(model: "GroundingDINO") -> None:
    """Make box and class heads compute in fp32 whatever the rest does."""
    transformer = model.transformer
    heads = [*model.bbox_embed, *model.class_embed, transformer.enc_out_bbox_embed, transformer.enc_out_class_embed]
    for head in {id(head): head for head in heads if head is not None}.values():
        compute_in_fp32(head)


def resized_shape(height: int, width: int, resize: Resize) -> tuple[int, int]:
    """Height and width that an image is resized to: short side first, unless the long side would pass its limit.

    Rounds as groundingdino.datasets.transforms.resize does, which lets the long side of thin images pass its limit
    (by a pixel at usual aspects); images so thin that the package's short side would be 0 are squeezed to the limit.
    """
    short, long = min(height, width), max(height, width)
    target = resize.short_side
    if long / short * target > resize.long_side:
        target = round(resize.long_side * short / long)
    if short == target:
        return height, width
    target, scaled = (target, int(target * long / short)) if target else (1, resize.long_side)
    return (target, scaled) if height <= width else (scaled, target)


def resize_image(image: Pixels, shape: tuple[int, int]) -> Pixels:
    """Resize to (height, width) with Pillow's antialiased bilinear filter, as the package does."""
    height, width = shape
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def resize_images(images: Sequence[Pixels], shape: tuple[int, int]) -> Pixels:
    """As `resize_image`, several at a time: (B, height, width, 3)."""
    resized = np.empty((len(images), *shape, 3), np.uint8)

    def lay(place: int) -> None:
        resized[place] = resize_image(images[place], shape)

    in_threads(lay, range(len(images)))
    return resized


def normalise(images: Tensor, least_shape: tuple[int, int]) -> Tensor:
    """Turn (B, H, W, 3) uint8 into (B, 3, H', W') float32 with ImageNet's mean and deviation taken out.

    H' and W' are at least `least_shape`; what is added at the bottom and right has the mean colour.
    """
    pixels = images.permute(0, 3, 1, 2).to(torch.float32).div(255)
    pixels = pixels.sub_(_channels(MEAN, images.device)).div_(_channels(STD, images.device))
    below, right = (max(least - side, 0) for least, side in zip(least_shape, pixels.shape[2:], strict=True))
    return torch.nn.functional.pad(pixels, (0, right, 0, below)) if below or right else pixels.contiguous()


@cache
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(3, 1, 1) on the device; kept, because bringing it there waits for all that runs there."""
    return torch.tensor(values, device=device).view(3, 1, 1)


def least_shape(shape: tuple[int, int], queries: int) -> tuple[int, int]:
    """The least shape not below the given one whose feature maps have a place for every query.

    The decoder picks its queries among the cells of maps at strides 8, 16 and 32 (and coarser). Only images much
    longer than wide have too few; the package fails on them.
    """
    height, width = shape
    while sum((height // stride) * (width // stride) for stride in (8, 16, 32)) < queries:
        if height <= width:
            height += 32
        else:
            width += 32
    return height, width

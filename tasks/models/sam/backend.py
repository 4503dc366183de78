"""Segments boxes with segment-anything's SAM."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.campaign.models import BatchSize, SegmenterConfig
from tasks.batching import Batcher
from tasks.fingerprint import fingerprint
from tasks.models.protocols import Floats, Masks, Pixels, Segmenter
from tasks.models.runtime import Runtime
from tasks.models.sam.architecture import architecture_of, build_sam, read_description
from tasks.models.sam.encoding import encode_masks, no_masks
from tasks.models.sam.upscaling import Upscale
from tasks.models.weights.load import load_into
from tasks.models.weights.resolve import resolve
from tasks.models.weights.state import read_state_dict

if TYPE_CHECKING:
    import torch
    from segment_anything.modeling import Sam

DECODER_BOXES: Final = {"cpu": 32, "cuda": 128}
"""Most boxes in one decoder call; about 50 MB each with the official architectures."""

PREPROCESSING: Final = "longest side, PIL bilinear, padded right and below; 1"
"""Part of the fingerprint: change it whenever equal weights could give other masks."""


def load(config: SegmenterConfig, runtime: Runtime) -> Segmenter:
    """Load a SAM checkpoint.

    Args:
        config: Names the checkpoint, its architecture and the batch size.
        runtime: Device and precision.

    Returns:
        A segmenter that owns the model.

    Raises:
        UserError: The architecture is unknown, or the checkpoint cannot be used (CheckpointError).
    """
    weights = resolve(config, "segmenter")
    state = read_state_dict(weights)
    architecture = weights.architecture or architecture_of(state)
    sam = build_sam(architecture)
    load_into(sam, state, weights)
    description = read_description(architecture)
    key = fingerprint("sam", PREPROCESSING, weights.sha256, description, runtime.precision)
    return SamSegmenter(sam, runtime, config.batch_size, key)


class SamSegmenter:
    """SAM prompted with boxes: one mask a box, images encoded in batches, all boxes of an image decoded together.

    In bf16 the image encoder runs under autocast; prompts and the mask decoder stay in fp32, because they hold the
    coordinates and cost little.
    """

    def __init__(self, sam: "Sam", runtime: Runtime, batch_size: BatchSize, key: str) -> None:
        """Take over a model; `key` is the fingerprint of its weights and of all that changes its masks."""
        self.fingerprint = key
        self._sam = sam.to(runtime.device).eval().requires_grad_(False)
        self._runtime = runtime
        self._images = Batcher("models.segmenter.batch_size", batch_size, start=4, most=32, device=runtime.device)
        kind = runtime.device.partition(":")[0]
        self._boxes = Batcher("SAM's mask decoder", DECODER_BOXES.get(kind, DECODER_BOXES["cpu"]))

    def segment(self, images: Sequence[Pixels], boxes: Sequence[Floats]) -> list[Masks]:
        """Mask each box of each image.

        Args:
            images: (H, W, 3) uint8 RGB, of any sizes.
            boxes: (N, 4) float32 xyxy in pixels of its image; N may be 0.

        Returns:
            Masks an image, in the order of its boxes. Images without boxes are not encoded.

        Raises:
            torch.OutOfMemoryError: A single image, or a single box, does not fit the device.
        """
        results = [no_masks() for _ in images]
        wanted = [index for index, prompts in enumerate(boxes) if len(prompts)]
        masks = self._images.run(
            wanted, lambda batch: self._segment([images[i] for i in batch], [boxes[i] for i in batch])
        )
        for index, found in zip(wanted, masks, strict=True):
            results[index] = found
        return results

    def _segment(self, images: Sequence[Pixels], boxes: Sequence[Floats]) -> list[Masks]:
        import torch

        with torch.inference_mode():
            inputs = [_resize(image, self._sam.image_encoder.img_size) for image in images]
            features = self._encode(inputs)
            return [
                self._decode(features[i : i + 1], inputs[i].shape[:2], images[i].shape[:2], boxes[i])
                for i in range(len(images))
            ]

    def _encode(self, inputs: Sequence[Pixels]) -> "torch.Tensor":
        import torch

        device = self._runtime.device
        tensors = [torch.from_numpy(pixels).to(device).permute(2, 0, 1) for pixels in inputs]
        batch = torch.stack([self._sam.preprocess(tensor) for tensor in tensors])
        reduced = self._runtime.precision == "bf16"
        with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16, enabled=reduced):
            features: torch.Tensor = self._sam.image_encoder(batch)
        return features.float()

    def _decode(
        self, features: "torch.Tensor", input_size: tuple[int, ...], size: tuple[int, ...], boxes: Floats
    ) -> Masks:
        """Masks for the (N, 4) boxes of one image whose encoding is (1, C, h, w)."""
        import torch

        scale = np.array([input_size[1] / size[1], input_size[0] / size[0]] * 2)
        prompts = torch.from_numpy((boxes * scale).astype(np.float32)).to(self._runtime.device)

        def decode(batch: Sequence[int]) -> list[tuple["torch.Tensor", "torch.Tensor"]]:
            sparse, dense = self._sam.prompt_encoder(points=None, boxes=prompts[list(batch)], masks=None)
            logits, iou = self._sam.mask_decoder(
                image_embeddings=features,
                image_pe=self._sam.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
            return list(zip(logits, iou, strict=True))

        answers = self._boxes.run(range(len(boxes)), decode)
        logits = torch.stack([answer[0] for answer in answers])
        iou: NDArray[np.float32] = torch.cat([answer[1] for answer in answers]).cpu().numpy()
        height, width = size[:2]
        upscale = Upscale(logits.shape[-1], self._sam.image_encoder.img_size, input_size, (height, width))
        return encode_masks(logits[:, 0], upscale, (height, width), self._sam.mask_threshold, iou)


def _resize(image: Pixels, longest: int) -> Pixels:
    """(h, w, 3): the longest side as long as the encoder's input, rounded as the package's ResizeLongestSide."""
    height, width = image.shape[:2]
    factor = longest / max(height, width)
    # A side never vanishes, however long and thin the image.
    size = (max(1, int(width * factor + 0.5)), max(1, int(height * factor + 0.5)))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))

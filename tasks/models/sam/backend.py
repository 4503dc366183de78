"""Segments boxes with segment-anything's SAM."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from vouch_labels.schemas.campaign import BatchSize, SegmenterConfig
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.models.batching import Batcher
from vouch_labels.tasks.models.checkpoints import resolve
from vouch_labels.tasks.models.registry import Floats, Masks, Pixels, Segmenter, join_masks, no_masks
from vouch_labels.tasks.models.runtime import Runtime, in_threads, numbers_of, to_device
from vouch_labels.tasks.models.sam.build import architecture_of, build_sam, read_description
from vouch_labels.tasks.models.sam.masks import Upscale, encode_batch, encode_masks, split_masks
from vouch_labels.tasks.models.state_dict import load_into, read_state_dict

if TYPE_CHECKING:
    import torch
    from segment_anything.modeling import Sam

DECODER_BOXES: Final = {"cpu": 32, "cuda": 128}
"""Most boxes in one call of the package's decoder; about 50 MB each with the official architectures."""

POOLED_BOXES: Final = {"cpu": 8, "cuda": 128}
"""Most boxes in one call of the pooled decoder: as many as stay near a CPU, as many as fill a GPU."""

PREPROCESSING: Final = "longest side, PIL bilinear, padded right and below; 1"
"""Part of the fingerprint: change it whenever equal weights could give other masks."""


def load(config: SegmenterConfig, runtime: Runtime) -> Segmenter:
    """Load a SAM checkpoint.

    Raises:
        UserError: The architecture is unknown, or the checkpoint cannot be used (CheckpointError).
    """
    weights = resolve(config, "segmenter")
    state = read_state_dict(weights)
    architecture = weights.architecture or architecture_of(state)
    sam = build_sam(architecture)
    load_into(sam, state, weights)
    description = read_description(architecture)
    numbers = numbers_of(runtime.precision, runtime.engine, ("fused_relpos", "channels_last"))
    key = fingerprint("sam", PREPROCESSING, weights.sha256, description, numbers)
    return SamSegmenter(sam, runtime, config.batch_size, key)


class SamSegmenter:
    """SAM prompted with boxes: one mask a box, images encoded in batches, all boxes of an image decoded together.

    In bf16 the image encoder runs under autocast; prompts and the mask decoder stay in fp32, because they hold the
    coordinates and cost little.
    """

    def __init__(self, sam: "Sam", runtime: Runtime, batch_size: BatchSize, key: str) -> None:
        """Take over a model; `key` is the fingerprint of its weights and of all that changes its masks."""
        from vouch_labels.tasks.models.sam.fast import PooledDecoder, install

        self.fingerprint = key
        self._sam = sam.to(runtime.device).eval().requires_grad_(False)
        self._runtime = runtime
        self._images = Batcher("models.segmenter.batch_size", batch_size, start=4, most=32, device=runtime.device)
        pooled = runtime.engine.has("pooled_decoder")
        most = POOLED_BOXES if pooled else DECODER_BOXES
        self._boxes = Batcher(
            "SAM's mask decoder", most.get(runtime.device.partition(":")[0], most["cpu"]), device=runtime.device
        )
        install(self._sam, runtime)
        self._decoder = PooledDecoder(self._sam, runtime.engine) if pooled else None

    def segment(self, images: Sequence[Pixels], boxes: Sequence[Floats]) -> list[Masks]:
        """Mask each (N, 4) float32 xyxy box, in pixels, of each (H, W, 3) uint8 RGB image; N may be 0.

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

        side = self._sam.image_encoder.img_size
        with torch.inference_mode():
            inputs = in_threads(lambda image: _resize(image, side), images)
            sizes = [(resized.shape[:2], image.shape[:2]) for resized, image in zip(inputs, images, strict=True)]
            factors = [[after[1] / before[1], after[0] / before[0]] * 2 for after, before in sizes]
            prompts = [np.asarray(each * np.array(one), np.float32) for each, one in zip(boxes, factors, strict=True)]
            small = 4 * self._sam.prompt_encoder.image_embedding_size[0]
            upscales = [Upscale(small, side, resized, size) for resized, size in sizes]
            return self._mask(self._encode(inputs), prompts, upscales)

    def _encode(self, inputs: Sequence[Pixels]) -> "torch.Tensor":
        import torch

        device = self._runtime.device
        tensors = [to_device(pixels, device).permute(2, 0, 1) for pixels in inputs]
        batch = torch.stack([self._sam.preprocess(tensor) for tensor in tensors])
        reduced = self._runtime.precision == "bf16"
        with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16, enabled=reduced):
            features: torch.Tensor = self._sam.image_encoder(batch)
        return features.float()

    def _mask(self, features: "torch.Tensor", prompts: Sequence[Floats], upscales: Sequence[Upscale]) -> list[Masks]:
        """Masks of the boxes of each image, from their encodings (B, C, h, w)."""
        device = self._runtime.device
        counts = [len(each) for each in prompts]
        images = np.repeat(np.arange(len(prompts)), counts)
        boxes = to_device(np.concatenate(prompts), device)
        image_of = to_device(images, device)
        places = None if self._decoder is None else self._decoder.places(features)

        def forward(chunk: Sequence[int]) -> list[Masks]:
            some = slice(chunk[0], chunk[-1] + 1)
            if self._decoder is not None and places is not None:
                logits, iou = self._decoder(places, image_of[some], boxes[some])
            else:
                logits, iou = self._decode(features[images[chunk[0]]][None], boxes[some])
            return self._describe(logits, iou, upscales, images[some].tolist())

        ends = np.cumsum(counts).tolist()
        spans = [range(end - count, end) for end, count in zip(ends, counts, strict=True)]
        if self._decoder is None:
            return [join_masks(self._boxes.run(span, forward)) for span in spans]
        masks = self._boxes.run(range(len(images)), forward)
        return [join_masks(masks[span.start : span.stop]) for span in spans]

    def _decode(self, features: "torch.Tensor", boxes: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
        """The package's own decoder: logits (N, s, s) and predicted IoU (N,) for boxes of one image."""
        sparse, dense = self._sam.prompt_encoder(points=None, boxes=boxes, masks=None)
        logits, iou = self._sam.mask_decoder(
            image_embeddings=features,
            image_pe=self._sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return logits[:, 0], iou[:, 0]

    def _describe(
        self, logits: "torch.Tensor", iou: "torch.Tensor", upscales: Sequence[Upscale], images: Sequence[int]
    ) -> list[Masks]:
        """Each mask of (N, s, s) logits, in order; `images` are the images that they belong to."""
        threshold = self._sam.mask_threshold
        if self._runtime.engine.has("device_masks"):
            return encode_batch(logits, iou, upscales, images, threshold)
        found = []
        for image in dict.fromkeys(images):
            first = images.index(image)
            some = slice(first, first + images.count(image))
            masks = encode_masks(logits[some], upscales[image], threshold, iou[some].cpu().numpy())
            found.extend(split_masks(masks))
        return found


def _resize(image: Pixels, longest: int) -> Pixels:
    """(h, w, 3): the longest side as long as the encoder's input, rounded as the package's ResizeLongestSide."""
    height, width = image.shape[:2]
    factor = longest / max(height, width)
    # A side never vanishes, however long and thin the image.
    size = (max(1, int(width * factor + 0.5)), max(1, int(height * factor + 0.5)))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))

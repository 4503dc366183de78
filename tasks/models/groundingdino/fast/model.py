"""Assembles GroundingDINO's fast forward pass from the parts that are switched on, and runs its image backbone.

The backbone is Swin with windows gathered in one step, and its convolutions (switch channels_last). Weights are rounded
to bfloat16 once, which autocast would round at each use.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vouch_labels.tasks.models.compile import compiled, install_onednn, linear
from vouch_labels.tasks.models.groundingdino.fast.attention import Windows, by_rows, cut, of_all, window_attention
from vouch_labels.tasks.models.groundingdino.fast.multiscale import Layout, Shapes, make_layout
from vouch_labels.tasks.models.groundingdino.fast.transformer import Decoder, Encoder, FastText, Selection
from vouch_labels.tasks.models.groundingdino.forward import ReferenceForward, TextFeatures
from vouch_labels.tasks.models.runtime import Engine, Runtime

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import (
        PatchEmbed,
        SwinTransformer,
        SwinTransformerBlock,
    )
    from groundingdino.models.GroundingDINO.groundingdino import GroundingDINO

WINDOWS_KEPT = 256
"""Ways of cutting a map into windows that are kept: two a stage and shape of images, 3 MB a shape of 800 x 1333."""
Stage = tuple[Tensor, tuple[int, int]]
"""Cells (B, H * W, C) and their (H, W)."""

Shape = tuple[int, int]
LAYOUTS_KEPT = 8
"""Layouts that are kept: each takes some 30 MB at 800 x 1333."""

SWITCHES = ("static_shapes", "folded_fusion", "fused_attention", "deformable", "late_heads", "channels_last")
"""The switches that this forward pass has."""


class Block:
    """One Swin block: attention within windows, then a feed-forward network."""

    def __init__(self, block: "SwinTransformerBlock", engine: Engine) -> None:
        """Take the package's SwinTransformerBlock."""
        self.side, self.shift = block.window_size, block.shift_size
        self._norm1, self._norm2, self._mlp = block.norm1, block.norm2, block.mlp
        self._attend = window_attention(block.attn, block.shift_size, engine)
        self.forward = compiled(self._forward, engine, "a block of GroundingDINO's backbone")

    def _forward(self, cells: Tensor, windows: Windows) -> Tensor:
        """Map cells (B, H * W, C) to cells."""
        batch, places, width = cells.shape
        order = of_all(windows.order, batch, places)
        back = of_all(windows.back, batch, len(windows.order))
        gathered = self._norm1(cells).view(-1, width).index_select(0, order)
        if windows.padding is not None:
            gathered.view(batch, -1, width).index_fill_(1, windows.padding, 0.0)
        kinds = None if windows.kinds is None else windows.kinds.repeat(batch)
        mixed = self._attend(gathered.view(-1, self.side**2, width), kinds)
        mixed = mixed.view(-1, width).index_select(0, back).view(cells.shape)
        return by_rows(self._feed_forward, cells + mixed)

    def _feed_forward(self, cells: Tensor) -> Tensor:
        hidden = linear(self._norm2(cells), self._mlp.fc1.weight, self._mlp.fc1.bias, gelu=True)
        fed: Tensor = self._mlp.fc2(hidden)
        return cells + fed


class FastSwin:
    """The package's SwinTransformer, for images in which nothing is padded."""

    def __init__(self, swin: "SwinTransformer", engine: Engine) -> None:
        """Take the package's SwinTransformer."""
        self._swin = swin
        self._patches = embed_patches(swin.patch_embed, engine)
        self._stages = [[Block(block, engine) for block in layer.blocks] for layer in swin.layers]
        self._cut: Callable[..., Windows] = lru_cache(WINDOWS_KEPT)(cut) if engine.has("static_shapes") else cut

    def __call__(self, images: Tensor) -> list[Stage]:
        """Run images (B, 3, H, W) through all stages; give those that the detector looks at, normalised."""
        cells, shape = self._patches(images)
        seen = []
        for number, (layer, blocks) in enumerate(zip(self._swin.layers, self._stages, strict=True)):
            for block in blocks:
                cells = block.forward(cells, self._cut(shape, block.side, block.shift, images.device))
            if number in self._swin.out_indices:
                seen.append((getattr(self._swin, f"norm{number}")(cells), shape))
            if layer.downsample is not None:
                cells = layer.downsample(cells, *shape)
                shape = (shape[0] + 1) // 2, (shape[1] + 1) // 2
        return seen


def embed_patches(embed: "PatchEmbed", engine: Engine) -> Callable[[Tensor], tuple[Tensor, Shape]]:
    """What turns images (B, 3, H, W) into cells (B, H' * W', C) and (H', W')."""
    return _PatchProduct(embed) if engine.has("channels_last") else _PackagePatches(embed)


def project_level(project: "nn.Sequential", engine: Engine) -> Callable[[Tensor, Shape], tuple[Tensor, Shape]]:
    """What turns cells (B, H * W, C) of a stage and their shape into cells of 256 channels and theirs.

    `project` is one of the package's input_proj: convolution and group normalisation.
    """
    return _LevelProduct(project) if engine.has("channels_last") else _PackageLevel(project)


class _PatchProduct:
    """Patches do not overlap, so their convolution is a matrix product, which leaves cells as Swin wants them."""

    def __init__(self, embed: "PatchEmbed") -> None:
        self._norm, self._side, self._proj = embed.norm, tuple(embed.patch_size), embed.proj

    def __call__(self, images: Tensor) -> tuple[Tensor, Shape]:
        down, across = self._side
        below, right = (-side % step for side, step in zip(images.shape[2:], self._side, strict=True))
        if below or right:
            images = functional.pad(images, (0, right, 0, below))
        batch, channels, height, width = images.shape
        shape = height // down, width // across
        patches = images.view(batch, channels, shape[0], down, shape[1], across).permute(0, 2, 4, 1, 3, 5)
        flat = patches.reshape(batch, shape[0] * shape[1], -1)
        cells = linear(flat, self._proj.weight.flatten(1), self._proj.bias)
        return (cells if self._norm is None else self._norm(cells)), shape


class _PackagePatches:
    def __init__(self, embed: "PatchEmbed") -> None:
        self._embed = embed

    def __call__(self, images: Tensor) -> tuple[Tensor, Shape]:
        maps: Tensor = self._embed(images)
        return maps.flatten(2).transpose(1, 2), (maps.shape[2], maps.shape[3])


class _LevelProduct:
    def __init__(self, project: "nn.Sequential") -> None:
        self._convolve, self._norm = cast("tuple[nn.Conv2d, nn.GroupNorm]", project)

    def __call__(self, cells: Tensor, shape: Shape) -> tuple[Tensor, Shape]:
        if self._convolve.kernel_size == (1, 1):
            maps = _as_map(linear(cells, self._convolve.weight.flatten(1), self._convolve.bias), shape)
        else:
            maps = self._convolve(_as_map(cells, shape))
        return _as_cells(self._norm(maps))


class _PackageLevel:
    def __init__(self, project: "nn.Sequential") -> None:
        self._project = project

    def __call__(self, cells: Tensor, shape: Shape) -> tuple[Tensor, Shape]:
        return _as_cells(self._project(_as_map(cells, shape).contiguous()))


def _as_map(cells: Tensor, shape: Shape) -> Tensor:
    """(B, H * W, C) -> (B, C, H, W), a view."""
    return cells.reshape(len(cells), *shape, -1).permute(0, 3, 1, 2)


def _as_cells(maps: Tensor) -> tuple[Tensor, Shape]:
    return maps.flatten(2).transpose(1, 2), (maps.shape[2], maps.shape[3])


class Seen(NamedTuple):
    """What the backbone saw in a batch of images."""

    cells: Tensor
    """(B, N, D): cells of all levels, row by row, finest level first."""
    shapes: Shapes
    """Of the levels."""


def fits(model: "GroundingDINO") -> bool:
    """Whether this forward pass can stand in for a model's own: Swin before a two-stage selection."""
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer

    backbone = model.backbone[0]
    return isinstance(backbone, SwinTransformer) and not backbone.ape and model.transformer.two_stage_type == "standard"


class FastGroundingDino:
    """Computes what groundingdino-py's GroundingDINO computes, on the same weights, which it leaves as they are.

    For batches of images of one exact size and one caption: nothing is padded, so there are no masks of padding.
    """

    def __init__(self, model: "GroundingDINO", engine: Engine) -> None:
        """Take a loaded model that `fits`, in eval mode, on its device; parts that are not fast call the package's."""
        self._model = model
        self._backbone = FastSwin(model.backbone[0], engine)
        self._projections = [project_level(part, engine) for part in model.input_proj]
        self._encoder = Encoder(model.transformer.encoder, engine)
        self._selection = Selection(model.transformer, engine)
        self._decoder = Decoder(model, engine)
        points = model.transformer.encoder.layers[0].self_attn.num_points if model.transformer.encoder.layers else 1

        def layout(shapes: Shapes, device: torch.device) -> Layout:
            return make_layout(model, shapes, points, device)

        self._layout: Callable[[Shapes, torch.device], Layout] = (
            lru_cache(LAYOUTS_KEPT)(layout) if engine.has("static_shapes") else layout
        )

    def prepare(self, text: TextFeatures) -> FastText:
        """Do all that depends on nothing but one caption, as `encode_text` gave it."""
        from groundingdino.models.GroundingDINO.utils import get_sine_pos_embed

        encoded = text["encoded_text"]
        positions = get_sine_pos_embed(
            text["position_ids"][..., None], num_pos_feats=encoded.shape[2], exchange_xy=False
        )
        return FastText(encoded, positions, text["text_self_attention_masks"], self._encoder.fold(encoded))

    def encode_images(self, images: Tensor) -> Seen:
        """Run the image backbone on (B, 3, H, W) float32, normalised."""
        stages = self._backbone(images)
        levels = [project(*stage) for project, stage in zip(self._projections, stages, strict=False)]
        for project in self._projections[len(stages) :]:
            levels.append(project(*(stages[-1] if len(levels) == len(stages) else levels[-1])))
        return Seen(torch.cat([cells for cells, _ in levels], 1), tuple(shape for _, shape in levels))

    def find(self, seen: Seen, text: FastText) -> tuple[Tensor, Tensor]:
        """Let text and images meet.

        Returns:
            Logits (B, Q, at least T), -inf beyond the T tokens of the caption, and boxes (B, Q, 4): centre x, y,
            width, height in [0, 1].
        """
        layout = self._layout(seen.shapes, seen.cells.device)
        memory, encoded = self._encoder(seen.cells, text, layout)
        logits, queries = self._selection(memory, encoded, layout)
        return self._decoder(queries, logits, memory, encoded, layout.levels)


def choose_forward(model: "GroundingDINO", runtime: Runtime) -> FastGroundingDino | ReferenceForward:
    """The fast forward pass where any of its switches is on, else the package's own.

    The model is in eval mode on the runtime's device. With bf16 and a switch on, its weights are rounded for good.
    """
    if not any(runtime.engine.has(name) for name in SWITCHES) or not fits(model):
        return ReferenceForward(model)
    fast = FastGroundingDino(model, runtime.engine)
    if runtime.device == "cpu":
        install_onednn(model)
    if runtime.precision == "bf16":
        round_weights(model)
    return fast


def round_weights(model: "GroundingDINO") -> None:
    """Round the matrices of backbone and transformer, in place; heads, text encoder and normalisations stay float32.

    Under autocast a model gives the same numbers before and after, and is of use under autocast only.
    """
    transformer = model.transformer
    heads = nn.ModuleList([model.bbox_embed, transformer.enc_out_bbox_embed])
    exact = {id(module) for module in heads.modules()}
    for module in [*model.backbone.modules(), *model.input_proj.modules(), *transformer.modules()]:
        if id(module) in exact or not isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
            continue
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(torch.bfloat16)

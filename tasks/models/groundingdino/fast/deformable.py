"""Deformable attention: a kernel on GPUs, weighted sums of table rows elsewhere (switch deformable)."""

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from tasks.models.engine.linear import linear
from tasks.models.engine.switches import Engine
from tasks.models.groundingdino.fast.layout import Levels, Places
from tasks.models.groundingdino.fast.sampling import sample

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.ms_deform_attn import MultiScaleDeformableAttention


class Attention(Protocol):
    """Multi-scale deformable attention, without its residual."""

    def project(self, memory: Tensor) -> Tensor:
        """Cells (B, N, D) of all levels to what is sampled."""
        ...

    def __call__(self, query: Tensor, values: Tensor, places: Places, levels: Levels) -> Tensor:
        """Queries (B, Q, D) at their places to (B, Q, D); `values` are what `project` gave."""
        ...


def deformable_attention(attention: "MultiScaleDeformableAttention", engine: Engine) -> Attention:
    """The package's MultiScaleDeformableAttention, with sampling of our own or as it is."""
    return DeformableAttention(attention) if engine.has("deformable") else _PackageAttention(attention)


class DeformableAttention:
    """The package's attention in pixels of each level, with offsets and weights from one matrix product."""

    def __init__(self, attention: "MultiScaleDeformableAttention") -> None:
        """Order the rows of offsets and weights as (heads, 3, levels * points): x, y, weight."""
        heads, width = attention.num_heads, attention.embed_dim
        samples = attention.num_levels * attention.num_points
        self._heads, self._samples = heads, samples
        self._value, self._out = attention.value_proj, attention.output_proj

        def ordered(offsets: Tensor, weights: Tensor) -> Tensor:
            pairs = offsets.view(heads, samples, 2, -1).transpose(1, 2)
            return torch.cat([pairs, weights.view(heads, 1, samples, -1)], 1).reshape(heads * 3 * samples, -1)

        offsets, weights = attention.sampling_offsets, attention.attention_weights
        self._weight = ordered(offsets.weight, weights.weight).view(-1, width)
        self._bias = ordered(offsets.bias, weights.bias).flatten()

    def project(self, memory: Tensor) -> Tensor:
        """Cells (B, N, D) to values (B, N, heads, D / heads)."""
        values: Tensor = self._value(memory)
        return values.view(*memory.shape[:2], self._heads, -1)

    def __call__(self, query: Tensor, values: Tensor, places: Places, levels: Levels) -> Tensor:
        """Sample the values around each query's place."""
        asked = linear(query, self._weight, self._bias).float()
        x, y, weights = asked.view(*query.shape[:2], self._heads, 3, self._samples).unbind(3)
        if places.scale_x is None or places.scale_y is None:
            x, y = places.x + x, places.y + y
        else:
            x, y = torch.addcmul(places.x, x, places.scale_x), torch.addcmul(places.y, y, places.scale_y)
        sampled = sample(values, levels.shapes, x, y, weights.softmax(3))
        mixed: Tensor = self._out(sampled)
        return mixed


class _PackageAttention:
    def __init__(self, attention: "MultiScaleDeformableAttention") -> None:
        self._attention = attention

    def project(self, memory: Tensor) -> Tensor:
        return memory

    def __call__(self, query: Tensor, values: Tensor, places: Places, levels: Levels) -> Tensor:
        reference = places.reference[:, :, None].expand(len(query), -1, len(levels.shapes), -1)
        mixed: Tensor = self._attention(
            query=query, value=values, reference_points=reference, spatial_shapes=levels.tensor
        )
        return mixed

"""The sampling of deformable attention as a Triton kernel."""

from typing import Any

import triton  # type: ignore[import-untyped] # triton has no types
import triton.language as tl  # type: ignore[import-untyped] # triton has no types
from torch import Tensor

ROWS = 32
"""Bags (a query and a head) that a program sums."""


def launch(values: Tensor, levels: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Run the kernel as `multiscale.sample`; levels (L, 3) int32 are height, width, first cell; sums are float32."""
    batch, cells, heads, depth = values.shape
    queries, samples = x.shape[1], x.shape[3]
    sampled = values.new_empty(batch, queries, heads * depth)
    bags = queries * heads
    if not bags or not batch:
        return sampled
    kernel: Any = _kernel
    kernel[(triton.cdiv(bags, ROWS), batch)](
        values.contiguous(), levels, x.contiguous(), y.contiguous(), weights.contiguous(), sampled,
        cells, bags, heads,
        LEVELS=len(levels), POINTS=samples // len(levels), DEPTH=depth,
        WIDTH=triton.next_power_of_2(depth), ROWS=ROWS, num_warps=4,
    )  # fmt: skip
    return sampled


@triton.jit  # type: ignore[untyped-decorator] # triton has no types
def _kernel(  # type: ignore[no-untyped-def]  # noqa: ANN202 - kernels have no types
    values, levels, xs, ys, weights, out, cells, bags, heads,  # noqa: ANN001 - kernels have no types
    LEVELS: tl.constexpr, POINTS: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,  # noqa: N803 - constants
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    bag = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, WIDTH)
    is_bag = bag < bags
    is_cell = is_bag[:, None] & (channel < DEPTH)[None, :]
    samples = (image * bags + bag) * (LEVELS * POINTS)
    head = bag % heads
    table = values + image * cells * heads * DEPTH
    total = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for level in tl.static_range(LEVELS):
        height = tl.load(levels + level * 3)
        width = tl.load(levels + level * 3 + 1)
        first = tl.load(levels + level * 3 + 2)
        for point in tl.static_range(POINTS):
            at = samples + level * POINTS + point
            x = tl.load(xs + at, mask=is_bag, other=0.0)
            y = tl.load(ys + at, mask=is_bag, other=0.0)
            weight = tl.load(weights + at, mask=is_bag, other=0.0)
            left = tl.floor(x)
            top = tl.floor(y)
            # What a pixel beyond the map counts: nothing, or NaN where any of the three is.
            beyond = tl.where((x == x) & (y == y), weight * 0.0, x + y)
            for corner in tl.static_range(4):
                column = left + (corner % 2)
                row = top + (corner // 2)
                share = weight * (1.0 - tl.abs(x - column)) * (1.0 - tl.abs(y - row))
                # Compared as floats, so that NaN and infinity are outside.
                inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
                cell = (
                    first + tl.where(inside, row, 0.0).to(tl.int32) * width + tl.where(inside, column, 0.0).to(tl.int32)
                )
                place = (cell * heads + head)[:, None] * DEPTH + channel[None, :]
                value = tl.load(table + place, mask=is_cell & inside[:, None], other=0.0).to(tl.float32)
                total += tl.where(inside, share, beyond)[:, None] * value
    tl.store(
        out + (image * bags + bag)[:, None] * DEPTH + channel[None, :], total.to(out.dtype.element_ty), mask=is_cell
    )

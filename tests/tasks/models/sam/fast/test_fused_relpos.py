"""The encoder's fused blocks against the package's, with windows, padding and relative positions of all kinds."""

import pytest
import torch
from segment_anything.modeling.image_encoder import Block, get_rel_pos

from tasks.models.sam.fast import fused_relpos
from tasks.models.sam.fast.fused_relpos import FusedBlock, with_bias, with_channels
from tests.float_bounds import U32, U64, UBF16, bounded, in_float64


def block_of(window: int, side: int, relative: bool, bias: bool, heads: int = 2) -> Block:
    torch.manual_seed(window + side)
    block = Block(24, heads, use_rel_pos=relative, qkv_bias=bias, window_size=window, input_size=(side, side)).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.3)
    return block


@pytest.mark.parametrize("window", [0, 2, 3, 4, 7])
@pytest.mark.parametrize(("relative", "bias"), [(True, True), (True, False), (False, True)])
def test_blocks_are_the_package_s(window, relative, bias):
    block = block_of(window, 6, relative, bias)
    tokens = torch.randn(3, 6, 6, 24)
    wide = in_float64(block)
    [wanted] = bounded(lambda: [wide(tokens.double())])
    with torch.inference_mode():
        wanted.check(FusedBlock(block, 6)(tokens))
        wanted.check(FusedBlock(block, 6)(tokens.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)))
        wanted.check(FusedBlock(wide, 6)(tokens.double()), times=U64 / U32)


def positions(query, rows, columns):
    """The terms of rows and of columns, in the type of the query."""
    placed = query.view(*query.shape[:2], len(rows), len(rows), -1)
    return torch.einsum("nahwc,hkc->nahwk", placed, rows), torch.einsum("nahwc,wkc->nahwk", placed, columns)


def attention(query, key, value, scale, rows, columns):
    """As Li et al. 2022 write it."""
    by_row, by_column = positions(query, rows, columns)
    bias = (by_row[..., :, None] + by_column[..., None, :]).flatten(4).flatten(2, 3)
    return torch.softmax(query @ key.transpose(2, 3) * scale + bias, dim=-1) @ value


@pytest.mark.parametrize("logits", [1, 100, 10_000])
@pytest.mark.parametrize("span", [1, 3, 8])
def test_both_ways_to_add_positions_are_the_same(monkeypatch, span, logits):
    monkeypatch.setattr(fused_relpos, "BIAS_LOGITS", logits)
    torch.manual_seed(span)
    tensors = torch.randn(3, 2, 2, span * span, 5)
    tables = [get_rel_pos(span, span, torch.randn(2 * span - 1, 5)) for _ in range(2)]
    [wanted] = bounded(lambda: [attention(*tensors.double(), 0.4, *(table.double() for table in tables))])
    query = tensors[0]
    for way in (with_bias, with_channels):
        wanted.check(way(*tensors, 0.4, *positions(query, *tables)))
        wide = positions(query.double(), *(table.double() for table in tables))
        wanted.check(way(*tensors.double(), 0.4, *wide), times=U64 / U32)


@pytest.mark.parametrize("spread", [1, 3])
@pytest.mark.parametrize(("span", "width"), [(3, 5), (14, 64), (14, 80), (20, 64)])
def test_both_ways_are_as_near_in_bf16_as_its_rounding_allows(span, width, spread):
    torch.manual_seed(span)
    tensors = (torch.randn(3, 2, 2, span * span, width) * spread).bfloat16()
    tables = [get_rel_pos(span, span, torch.randn(2 * span - 1, width) * 0.3).bfloat16() for _ in range(2)]
    scale = width**-0.5
    [wanted] = bounded(lambda: [attention(*tensors.double(), scale, *(table.double() for table in tables))], UBF16)
    for way in (with_bias, with_channels):
        found = way(*tensors, scale, *positions(tensors[0], *tables))
        assert found.dtype == torch.bfloat16
        wanted.check(found)
    assert wanted.bound < wanted.exact.abs().max()


@pytest.mark.parametrize("window", [0, 4])
def test_a_block_compiles_in_one_piece(window):
    block = FusedBlock(block_of(window, 6, True, True), 6)
    tokens = torch.randn(2, 6, 6, 24)
    with torch.inference_mode():
        expected = block(tokens)
        whole = torch.compile(block.forward, backend="eager", fullgraph=True)
        # Traced and run by the same kernels on the same shapes.
        torch.testing.assert_close(whole(tokens), expected)

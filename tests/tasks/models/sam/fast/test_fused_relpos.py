"""The encoder's fused blocks against the package's, with windows, padding and relative positions of all kinds."""

import pytest
import torch
from segment_anything.modeling.image_encoder import Block, get_rel_pos

from tasks.models.sam.fast import fused_relpos
from tasks.models.sam.fast.fused_relpos import FusedBlock, with_bias, with_channels


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
    with torch.inference_mode():
        torch.testing.assert_close(FusedBlock(block, 6)(tokens), block(tokens), atol=1e-4, rtol=1e-4)
        turned = tokens.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        torch.testing.assert_close(FusedBlock(block, 6)(turned), block(tokens), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("logits", [1, 100, 10_000])
@pytest.mark.parametrize("span", [1, 3, 8])
def test_both_ways_to_add_positions_are_the_same(monkeypatch, span, logits):
    monkeypatch.setattr(fused_relpos, "BIAS_LOGITS", logits)
    torch.manual_seed(span)
    query, key, value = torch.randn(3, 2, 2, span * span, 5).unbind(0)
    placed = query.view(2, 2, span, span, 5)
    rows, columns = (get_rel_pos(span, span, torch.randn(2 * span - 1, 5)) for _ in range(2))
    by_row = torch.einsum("nahwc,hkc->nahwk", placed, rows)
    by_column = torch.einsum("nahwc,wkc->nahwk", placed, columns)
    bias = (by_row[..., :, None] + by_column[..., None, :]).flatten(4).flatten(2, 3)
    expected = torch.softmax(query @ key.transpose(2, 3) * 0.4 + bias, dim=-1) @ value
    for way in (with_bias, with_channels):
        found = way(query, key, value, 0.4, by_row, by_column)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spread", [1, 3])
@pytest.mark.parametrize(("span", "width"), [(3, 5), (14, 64), (14, 80), (20, 64)])
def test_channels_lose_no_more_in_bf16_than_a_bias(span, width, spread):
    torch.manual_seed(span)
    query, key, value = (torch.randn(3, 2, 2, span * span, width) * spread).bfloat16().unbind(0)
    rows, columns = (get_rel_pos(span, span, torch.randn(2 * span - 1, width) * 0.3).bfloat16() for _ in range(2))

    def terms(dtype):
        placed = query.to(dtype).view(2, 2, span, span, width)
        return (
            torch.einsum("nahwc,hkc->nahwk", placed, rows.to(dtype)),
            torch.einsum("nahwc,wkc->nahwk", placed, columns.to(dtype)),
        )

    exact = with_bias(query.double(), key.double(), value.double(), width**-0.5, *terms(torch.float64))
    errors = []
    for way in (with_bias, with_channels):
        found = way(query, key, value, width**-0.5, *terms(torch.bfloat16))
        assert found.dtype == torch.bfloat16
        errors.append((found.double() - exact).abs().mean())
    assert errors[1] < 2 * errors[0]
    assert errors[1] < 0.01 * exact.abs().mean()


@pytest.mark.parametrize("window", [0, 4])
def test_a_block_compiles_in_one_piece(window):
    block = FusedBlock(block_of(window, 6, True, True), 6)
    tokens = torch.randn(2, 6, 6, 24)
    with torch.inference_mode():
        expected = block(tokens)
        whole = torch.compile(block.forward, backend="eager", fullgraph=True)
        torch.testing.assert_close(whole(tokens), expected)

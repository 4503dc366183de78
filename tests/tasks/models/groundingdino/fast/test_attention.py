"""Windows against those that the package rolls, pads and cuts."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.float_bounds import U32, U64, bounded, in_float64
from vouch_labels.tasks.models.groundingdino.fast.attention import FoldedFusion, cut, of_all


def block(seed: int = 0) -> Any:
    """A fusion layer of the published size with weights that make attention uneven."""
    from groundingdino.models.GroundingDINO.fuse_modules import BiAttentionBlock

    generator = torch.Generator().manual_seed(seed)
    made = BiAttentionBlock(v_dim=256, l_dim=256, embed_dim=1024, num_heads=4, dropout=0.0).eval().requires_grad_(False)
    for name, parameter in made.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(drawn * (1.5 / 16 if parameter.dim() > 1 else 0.3) + (1.0 if "norm" in name else 0.0))
    return made


def inputs(cells: int, tokens: int, batch: int = 2, texts: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(cells)
    return torch.randn(batch, cells, 256, generator=generator), torch.randn(texts, tokens, 256, generator=generator)


@pytest.mark.parametrize(("cells", "tokens"), [(300, 7), (41, 195), (1, 3)])
def test_it_is_the_package_s_layer(cells: int, tokens: int) -> None:
    """In float64 to its rounding; in float32 as far as float32 can be from float64, whatever the kernels."""
    layer = block()
    wide = in_float64(layer)
    image, text = inputs(cells, tokens)
    wanted = bounded(lambda: wide(image.double(), text.double()))
    with torch.inference_mode():
        folded = FoldedFusion(layer)(image, text)
        folded_wide = FoldedFusion(wide)(image.double(), text.double())
        package = layer(image, text)
    for one, found, found_wide, theirs in zip(wanted, folded, folded_wide, package, strict=True):
        one.check(found)
        one.check(theirs)
        one.check(found_wide, times=U64 / U32)
    assert (wanted[0].exact - torch.nn.functional.layer_norm(image.double(), (256,))).abs().mean() > 0.01


def test_one_text_for_all_images_equals_as_many_copies() -> None:
    layer = block()
    image, text = inputs(50, 6, batch=3, texts=1)
    wide, folded = in_float64(layer), FoldedFusion(layer)
    wanted = bounded(lambda: wide(image.double(), text.double().expand(3, -1, -1)))
    with torch.inference_mode():
        once, before = folded(image, text), folded(image, text, folded.fold(text))
    for one, now, kept in zip(wanted, once, before, strict=True):
        one.check(now)
        one.check(kept)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("shape", [(8, 12), (9, 7), (4, 4), (1, 13), (3, 2)])
def test_windows_are_the_package_s_for_every_image_of_a_batch(shape: tuple[int, int], shift: int) -> None:
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import window_partition

    side, (height, width) = 4, shape
    maps = torch.arange(1.0, 1 + 3 * height * width * 2).view(3, height, width, 2)
    padded = functional.pad(maps, (0, 0, 0, -width % side, 0, -height % side))
    expected = window_partition(torch.roll(padded, (-shift, -shift), (1, 2)), side).flatten(0, 2)

    windows = cut(shape, side, shift, torch.device("cpu"))
    flat = maps.view(-1, 2)
    found = flat.index_select(0, of_all(windows.order, 3, height * width))
    if windows.padding is not None:
        found.view(3, -1, 2).index_fill_(1, windows.padding, 0.0)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    torch.testing.assert_close(found.index_select(0, of_all(windows.back, 3, len(windows.order))), flat, atol=0, rtol=0)
    assert (windows.padding is None) == (height % side == width % side == 0)


def test_kinds_say_which_border_a_window_lies_at() -> None:
    windows = cut((9, 7), 4, 2, torch.device("cpu"))
    assert windows.kinds is not None
    assert windows.kinds.tolist() == [0, 1, 0, 1, 2, 3]
    assert cut((9, 7), 4, 0, torch.device("cpu")).kinds is None

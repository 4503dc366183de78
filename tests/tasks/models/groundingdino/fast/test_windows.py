"""Windows against those that the package rolls, pads and cuts."""

import pytest
import torch
from torch.nn import functional

from tasks.models.groundingdino.fast.windows import cut, of_all


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

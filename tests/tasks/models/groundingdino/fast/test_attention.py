"""Attention of the fast engine: windows, and sampling at several scales."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tests.float_bounds import U32, U64, UBF16, assert_within, bounded, gamma, in_float64
from tests.processes import HANG_S
from vouch_labels.tasks.models.groundingdino.fast import multiscale
from vouch_labels.tasks.models.groundingdino.fast.attention import FoldedFusion, cut, of_all
from vouch_labels.tasks.models.groundingdino.fast.multiscale import Shapes, sample

SHAPES: list[Shapes] = [((5, 7), (3, 4)), ((1, 1),), ((1, 6), (4, 1), (2, 2)), ((13, 8), (7, 4), (4, 2), (2, 1))]


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


def case(
    shapes: Shapes, batch: int = 2, queries: int = 9, heads: int = 3, depth: int = 4, points: int = 2, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, places in shares of the map (also outside of it and on its borders), weights."""
    generator = torch.Generator().manual_seed(seed)
    cells = sum(height * width for height, width in shapes)
    values = torch.randn(batch, cells, heads, depth, generator=generator)
    places = torch.rand(batch, queries, heads, len(shapes), points, 2, generator=generator) * 1.6 - 0.3
    places[:, 0] = 0
    places[:, 1] = 1
    weights = torch.randn(batch, queries, heads, len(shapes) * points, generator=generator).softmax(3)
    return values, places, weights.view(*weights.shape[:3], len(shapes), points)


def by_the_package(values: Tensor, shapes: Shapes, places: Tensor, weights: Tensor) -> Tensor:
    """In float64."""
    from groundingdino.models.GroundingDINO.ms_deform_attn import multi_scale_deformable_attn_pytorch

    inputs = values.double(), torch.tensor(shapes), places.double(), weights.double()
    answer: Tensor = multi_scale_deformable_attn_pytorch(*inputs)
    return answer


def bound(values: Tensor, shapes: Shapes, weights: Tensor) -> float:
    """Of the samples in float32, whose weights sum to 1.

    A place in pixels is rounded four times on its way from a share of the map, places reach 1.3 times the map, and a
    pixel further the value is another one, at most twice the greatest away; then all corners of all samples are summed.
    """
    side, corners = max(max(shape) for shape in shapes), 4 * weights[0, 0, 0].numel()
    greatest = float(values.abs().max())
    return (gamma(4) * 1.3 * side * 2 * 2 + gamma(corners + 6)) * greatest


def assert_sampled(
    found: Tensor, values: Tensor, shapes: Shapes, places: Tensor, weights: Tensor, rtol: float = 0
) -> None:
    wanted = by_the_package(values, shapes, places, weights)
    assert_within(found, wanted, bound(values, shapes, weights) + rtol * wanted.abs())


def ours(values: Tensor, shapes: Shapes, places: Tensor, weights: Tensor) -> Tensor:
    pixels = places * torch.tensor(shapes).flip(1)[:, None] - 0.5
    x, y = (pixels[..., axis].flatten(3).to(values.device) for axis in (0, 1))
    return sample(values, shapes, x, y, weights.flatten(3).to(values.device))


@pytest.mark.parametrize("shapes", SHAPES)
def test_equals_the_package_s_operation(shapes: Shapes) -> None:
    values, places, weights = case(shapes)
    assert_sampled(ours(values, shapes, places, weights), values, shapes, places, weights)


@settings(max_examples=40)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4).map(tuple),
    batch=st.integers(1, 3),
    queries=st.integers(2, 20),
    heads=st.integers(1, 4),
    depth=st.integers(1, 9),
    points=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_any_shapes(shapes: Shapes, batch: int, queries: int, heads: int, depth: int, points: int, seed: int) -> None:
    values, places, weights = case(shapes, batch, queries, heads, depth, points, seed)
    assert_sampled(ours(values, shapes, places, weights), values, shapes, places, weights)


def test_pieces_join(monkeypatch: pytest.MonkeyPatch) -> None:
    from vouch_labels.tasks.models.groundingdino.fast import multiscale

    values, places, weights = case(SHAPES[0], queries=50)
    monkeypatch.setattr(multiscale, "PIECE", 100)
    assert_sampled(ours(values, SHAPES[0], places, weights), values, SHAPES[0], places, weights)


def test_no_queries_and_no_images() -> None:
    for batch, queries in ((2, 0), (0, 5)):
        values, x = torch.zeros(batch, 35, 3, 4), torch.zeros(batch, queries, 3, 2)
        for way in (sample, multiscale.sample_grids):
            assert way(values, ((5, 7),), x, x, x).shape == (batch, queries, 12)


def test_numbers_that_are_none_stay_in_their_image() -> None:
    values, places, weights = case(SHAPES[0])
    whole = ours(values, SHAPES[0], places, weights)
    places[1] = torch.nan
    found = ours(values, SHAPES[0], places, weights)
    torch.testing.assert_close(found[0], whole[0])
    assert found[1].isnan().all()
    places[1] = torch.inf
    assert torch.isfinite(ours(values, SHAPES[0], places, weights)[0]).all()


def test_bf16_values_are_summed_in_fp32() -> None:
    values, places, weights = case(SHAPES[3])
    found = ours(values.bfloat16(), SHAPES[3], places, weights)
    assert found.dtype == torch.bfloat16
    assert_sampled(found, values.bfloat16(), SHAPES[3], places, weights, rtol=UBF16)


@pytest.fixture
def no_trouble(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing is known of the kernel yet."""
    trouble: list[str] = []
    monkeypatch.setattr(multiscale, "_TROUBLE", trouble)
    return trouble


def pixels_of(shapes: Shapes, places: Tensor) -> tuple[Tensor, Tensor]:
    pixels = places * torch.tensor(shapes).flip(1)[:, None] - 0.5
    return pixels[..., 0].flatten(3), pixels[..., 1].flatten(3)


@pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="Triton computes on CPUs there")
def test_a_kernel_that_cannot_be_launched_is_tried_once(
    no_trouble: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Triton has no driver for tensors of a CPU: here it fails as it does where it finds no compiler."""
    tries = []
    launch = multiscale._launch
    monkeypatch.setattr(multiscale, "_launch", lambda *inputs: tries.append(1) or launch(*inputs))
    for shapes in SHAPES:
        values, places, weights = case(shapes)
        found = multiscale.sample_on_gpu(values, shapes, *pixels_of(shapes, places), weights.flatten(3))
        assert_sampled(found, values, shapes, places, weights)
    assert len(tries) == len(no_trouble) == len(caplog.records) == 1
    assert caplog.records[0].message.startswith("GroundingDINO's sampling kernel cannot be used, slower grid_sample")


def test_a_full_device_is_for_the_batcher_and_the_kernel_is_tried_again(
    no_trouble: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [torch.OutOfMemoryError("full"), RuntimeError("Triton Error [CUDA]: out of memory")]

    def launch(*inputs: object) -> Tensor:
        raise errors.pop()

    monkeypatch.setattr(multiscale, "_launch", launch)
    values, places, weights = case(SHAPES[0])
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            multiscale.sample_on_gpu(values, SHAPES[0], *pixels_of(SHAPES[0], places), weights.flatten(3))
    assert not no_trouble
    assert not errors


def test_the_kernel_is_launched_on_the_device_of_the_values(
    no_trouble: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    pytest.importorskip("triton")
    current: list[int] = []

    @contextmanager
    def device(number: int) -> Iterator[None]:
        current.append(number)
        yield
        current.clear()

    def launch(values: Tensor, *inputs: Tensor) -> Tensor:
        assert current == [values.get_device()]
        return values + 1

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr("vouch_labels.tasks.models.groundingdino.fast.sampling_kernel.launch", launch)
    values, x = torch.zeros(1, 35, 3, 4), torch.zeros(1, 2, 3, 2)
    assert torch.equal(multiscale.sample_on_gpu(values, ((5, 7),), x, x, x), values + 1)
    assert not no_trouble


@pytest.mark.parametrize("shapes", SHAPES)
def test_grids_keep_what_is_not_a_number_in_its_image_and_the_type(shapes: Shapes) -> None:
    values, places, weights = case(shapes)
    x, y = pixels_of(shapes, places)
    whole = multiscale.sample_grids(values.bfloat16(), shapes, x, y, weights.flatten(3))
    assert whole.dtype == torch.bfloat16
    assert_sampled(whole, values.bfloat16(), shapes, places, weights, rtol=2 * UBF16)  # rounded once or twice
    x[1] = torch.nan
    found = multiscale.sample_grids(values.bfloat16(), shapes, x, y, weights.flatten(3))
    assert torch.equal(found[0], whole[0])
    assert found[1].isnan().all()


KERNEL = """
import sys, torch
sys.path.insert(0, {folder!r})
from test_attention import SHAPES, assert_sampled, case
from vouch_labels.tasks.models.groundingdino.fast.multiscale import levels_table
from vouch_labels.tasks.models.groundingdino.fast.sampling_kernel import launch

for shapes, depth, dtype in [*((s, 4, torch.float32) for s in SHAPES), (SHAPES[3], 5, torch.float32),
                             (SHAPES[0], 4, torch.bfloat16)]:
    values, places, weights = case(shapes, depth=depth, queries=13)
    values = values.to(dtype)
    pixels = places * torch.tensor(shapes).flip(1)[:, None] - 0.5
    x, y = (pixels[..., axis].flatten(3) for axis in (0, 1))
    found = launch(values, levels_table(shapes, torch.device("cpu")), x, y, weights.flatten(3))
    assert found.dtype == dtype
    assert found.isfinite().all()
    rtol = 2**-7 if dtype == torch.bfloat16 else 0  # the interpreter cuts bits off where a GPU rounds
    assert_sampled(found, values, shapes, places, weights, rtol)
    for lost in range(3):
        inputs = [x.clone(), y.clone(), weights.flatten(3).clone()]
        inputs[lost][1] = torch.nan
        again = launch(values, levels_table(shapes, torch.device("cpu")), *inputs)
        torch.testing.assert_close(again[0], found[0])
        assert again[1].isnan().all()
# A level without cells, which grid_sample refuses: as if its samples were not asked for.
values, places, weights = case(SHAPES[0], queries=13)
x, y = ((places * torch.tensor(SHAPES[0]).flip(1)[:, None] - 0.5)[..., axis].flatten(3) for axis in (0, 1))
none = torch.zeros(2, 13, 3, 2)
inputs = [torch.cat([each[..., :2], none, each[..., 2:]], 3) for each in (x, y, weights.flatten(3))]
inputs[2][..., 2:4] = 0.3
found = launch(values, levels_table((SHAPES[0][0], (0, 4), SHAPES[0][1]), torch.device("cpu")), *inputs)
assert_sampled(found, values, SHAPES[0], places, weights)
empty, level = torch.zeros(1, 0, 3, 2), levels_table(((5, 7),), torch.device("cpu"))
assert launch(torch.zeros(1, 35, 3, 4), level, empty, empty, empty).shape == (1, 0, 12)
print("equal")
"""


@pytest.mark.slow
def test_kernel_interpreted_equals_the_package_s_operation() -> None:
    pytest.importorskip("triton")
    root = Path(__file__).parents[5]
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KERNEL.format(folder=folder)],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.stdout.strip().endswith("equal"), done.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shapes", [*SHAPES, ((100, 167), (50, 84), (25, 42), (13, 21))])
def test_kernel_on_a_gpu_equals_the_package_s_operation(shapes: Shapes, dtype: torch.dtype) -> None:
    values, places, weights = case(shapes, heads=8, depth=32, points=4, queries=900)
    values = values.to(dtype)
    found = ours(values.cuda(), shapes, places, weights).cpu()
    assert_sampled(found, values, shapes, places, weights, UBF16 if dtype == torch.bfloat16 else 0)

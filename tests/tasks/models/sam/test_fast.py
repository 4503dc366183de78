"""The fast SAM against the package's own predictor: bundled weights and samples, each switch alone and all together.

The encoder's fused blocks against the package's, with windows, padding and relative positions of all kinds.

The pooled decoder against the package's, box by box.

Encoder and decoder neither bring anything to a GPU nor wait for it; seen without one.
"""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.image_encoder import Block, get_rel_pos

from tests.float_bounds import U32, U64, UBF16, bounded, in_float64
from tests.tasks.models.conftest import FakeCuda, crossings_of
from tests.tasks.models.sam.exact import WantedMasks, decoded, exact_sam, wanted_masks
from vouch_labels.schemas.campaign import ModelsConfig, SegmenterConfig
from vouch_labels.tasks.models.registry import load_segmenter
from vouch_labels.tasks.models.runtime import REFERENCE, Engine, Runtime, choose_runtime
from vouch_labels.tasks.models.sam import fast
from vouch_labels.tasks.models.sam.backend import SamSegmenter
from vouch_labels.tasks.models.sam.fast import FusedBlock, PooledDecoder, install, with_bias, with_channels

SAMPLES = Path(__file__).parents[4] / "starter" / "samples"
SWITCHES = ("fused_relpos", "channels_last", "pooled_decoder", "device_masks")
COUNT = 3
BF16_AGREES = 0.98
"""Share of the pixels in masks. bf16 moves a logit by some roundoffs of 2**-8 of its 26, that is by 0.1 a rounding that
counts; edges are a pixel wide and rise by several logits, and masks are tens of pixels wide."""
ENGINES = {name: Engine(frozenset([name])) for name in SWITCHES} | {"all": Engine(), "reference": REFERENCE}

Pictures = tuple[list[NDArray[np.uint8]], list[NDArray[np.float32]]]


@pytest.fixture(scope="module")
def samples() -> Pictures:
    truth = json.loads((SAMPLES / "ground_truth.json").read_text())
    images, boxes = [], []
    for entry in truth["images"][:COUNT]:
        images.append(np.asarray(Image.open(SAMPLES / entry["file_name"]).convert("RGB")))
        xywh = np.array([row["bbox"] for row in truth["annotations"] if row["image_id"] == entry["id"]], np.float32)
        xyxy = xywh.reshape(-1, 4)
        xyxy[:, 2:] += xyxy[:, :2]
        boxes.append(xyxy)
    return images, boxes


@pytest.fixture(scope="module")
def package() -> torch.nn.Module:
    segmenter = load_segmenter(SegmenterConfig(), Runtime("cpu", "fp32", REFERENCE))
    assert isinstance(segmenter, SamSegmenter)
    return segmenter._sam


@pytest.fixture(scope="module")
def wanted(package: torch.nn.Module, samples: Pictures) -> list[WantedMasks]:
    return wanted_masks(package, *samples)


def agreement(found, wanted):
    """The smallest share of equal pixels of an image, of the pixels in its masks, which are fewer than the image's."""
    shares = []
    for masks, one in zip(found, wanted, strict=True):
        expected = (one.logits.exact > one.threshold).numpy()
        mine = decoded(masks, *expected.shape[1:])
        shares.append(1 - (mine != expected).sum() / np.maximum(expected.sum(), 1))
    return min(shares)


@pytest.mark.parametrize("name", ENGINES)
def test_masks_are_the_predictor_s(package, samples, wanted, name):
    images, boxes = samples
    found = SamSegmenter(copy.deepcopy(package), Runtime("cpu", "fp32", ENGINES[name]), 2, "key").segment(images, boxes)
    for masks, one in zip(found, wanted, strict=True):
        one.check(masks)
        assert one.sure.mean() > 0.999


def test_bf16_agrees(package, samples, wanted):
    images, boxes = samples
    segmenter = SamSegmenter(copy.deepcopy(package), Runtime("cpu", "bf16"), 2, "key")
    assert agreement(segmenter.segment(images, boxes), wanted) >= BF16_AGREES
    assert segmenter._sam.image_encoder.blocks[0].attn.qkv.weight.dtype == torch.bfloat16


def test_the_same_weights_under_the_same_names(package):
    fast = SamSegmenter(copy.deepcopy(package), Runtime("cpu", "fp32", ENGINES["fused_relpos"]), 3, "key")._sam
    own = package.state_dict()
    assert fast.state_dict().keys() == own.keys()
    assert all(torch.equal(value, own[name]) for name, value in fast.state_dict().items())


@pytest.fixture(scope="module")
def full_size(samples):
    """A ViT-B with random weights, cut where half of the pixels are above; an image, boxes, and what is wanted."""
    torch.manual_seed(0)
    sam = sam_model_registry["vit_b"]().eval()
    with torch.no_grad():
        for block in sam.image_encoder.blocks:
            block.attn.rel_pos_h.normal_(std=0.1)
            block.attn.rel_pos_w.normal_(std=0.1)
    images, boxes = samples[0][:1], samples[1][:1]
    [wanted] = wanted_masks(sam, images, boxes, wide=False)
    sam.mask_threshold = float(wanted.logits.exact.median())
    return sam, images, boxes, wanted._replace(threshold=sam.mask_threshold)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all", *SWITCHES])
def test_a_full_size_vit_b(full_size, name):
    sam, images, boxes, wanted = full_size
    found = SamSegmenter(copy.deepcopy(sam), Runtime("cpu", "fp32", ENGINES[name]), 1, "key").segment(images, boxes)
    assert 0.3 < (wanted.logits.exact > wanted.threshold).double().mean() < 0.7
    wanted.check(found[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_agrees(package, samples, wanted, precision):
    images, boxes = samples
    runtime = choose_runtime(ModelsConfig(device="cuda:0", precision=precision))
    found = SamSegmenter(copy.deepcopy(package), runtime, 3, "key").segment(images, boxes)
    if precision == "bf16":
        assert agreement(found, wanted) >= BF16_AGREES
    else:
        for masks, one in zip(found, wanted, strict=True):
            one.check(masks)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_waited_for_a_few_times_a_batch(package, samples):
    images, boxes = samples
    segmenter = SamSegmenter(copy.deepcopy(package), Runtime("cuda:0", "fp32"), COUNT, "key")
    segmenter.segment(images, boxes)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        segmenter.segment(images, boxes)
    waits = {event.key: event.count for event in profile.key_averages()}
    # Two copies and one count of changes a call of the decoder, whatever the number of boxes.
    assert waits.get("aten::nonzero", 0) <= 2
    assert waits.get("aten::item", 0) == 0


@pytest.mark.slow
def test_nine_hundred_boxes_beside_none(samples, wanted):
    segmenter = load_segmenter(SegmenterConfig(), Runtime("cpu", "fp32"))
    images, boxes = samples
    again = np.arange(900) % len(boxes[0])
    none, found = segmenter.segment([images[1], images[0]], [np.zeros((0, 4), np.float32), boxes[0][again]])
    assert len(none.rle_counts) == 0
    one = wanted[0]
    logits, iou = (each._replace(exact=each.exact[again]) for each in (one.logits, one.iou))
    one._replace(logits=logits, iou=iou).check(found)


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
    monkeypatch.setattr(fast, "BIAS_LOGITS", logits)
    torch.manual_seed(span)
    tensors = torch.randn(3, 2, 2, span * span, 5)
    tables = [get_rel_pos(span, span, torch.randn(2 * span - 1, 5)) for _ in range(2)]
    [wanted] = bounded(lambda: [attention(*[*tensors.double(), 0.4, *(table.double() for table in tables)])])
    query = tensors[0]
    for way in (with_bias, with_channels):
        wanted.check(way(*[*tensors, 0.4, *positions(query, *tables)]))
        wide = positions(query.double(), *(table.double() for table in tables))
        wanted.check(way(*[*tensors.double(), 0.4, *wide]), times=U64 / U32)


@pytest.mark.parametrize("spread", [1, 3])
@pytest.mark.parametrize(("span", "width"), [(3, 5), (14, 64), (14, 80), (20, 64)])
def test_both_ways_are_as_near_in_bf16_as_its_rounding_allows(span, width, spread):
    torch.manual_seed(span)
    tensors = (torch.randn(3, 2, 2, span * span, width) * spread).bfloat16()
    tables = [get_rel_pos(span, span, torch.randn(2 * span - 1, width) * 0.3).bfloat16() for _ in range(2)]
    scale = width**-0.5
    [wanted] = bounded(lambda: [attention(*[*tensors.double(), scale, *(table.double() for table in tables)])], UBF16)
    for way in (with_bias, with_channels):
        found = way(*[*tensors, scale, *positions(tensors[0], *tables)])
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


@pytest.fixture(scope="module")
def sam() -> Sam:
    torch.manual_seed(4)
    width = 32
    sam = Sam(
        ImageEncoderViT(img_size=80, patch_size=16, embed_dim=8, depth=1, num_heads=2, out_chans=width),
        PromptEncoder(embed_dim=width, image_embedding_size=(5, 5), input_image_size=(80, 80), mask_in_chans=4),
        MaskDecoder(transformer=TwoWayTransformer(2, width, 4, 48), transformer_dim=width, iou_head_hidden_dim=16),
    ).eval()
    with torch.no_grad():
        for parameter in sam.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.dim() > 1 else 0.5))
    return sam.requires_grad_(False)


def by_the_package(sam, features, image, boxes):
    logits, estimates = [], []
    for index, box in zip(image.tolist(), boxes, strict=True):
        sparse, dense = sam.prompt_encoder(points=None, boxes=box[None], masks=None)
        found, iou = sam.mask_decoder(
            image_embeddings=features[index][None],
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        logits.append(found[0, 0])
        estimates.append(iou[0, 0])
    return torch.stack(logits), torch.stack(estimates)


def some(count, images):
    corners = torch.rand(count, 2, 2).sort(dim=1).values * 80
    return torch.randn(images, 32, 5, 5), torch.randint(images, (count,)), corners.flatten(1)


@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("compile", [False, True])
def test_boxes_of_many_images_at_once(sam, monkeypatch, count, compile):
    monkeypatch.setattr("vouch_labels.tasks.models.sam.fast.compiled", lambda function, *_: function)
    features, image, boxes = some(count, 3)
    with torch.inference_mode():
        decoder = PooledDecoder(sam, Engine(compile=compile))
        found = decoder(decoder.places(features), image, boxes)
    exact = exact_sam(sam)
    wanted = bounded(lambda: by_the_package(exact, features.double(), image, boxes.double()))
    assert wanted[0].exact.std() > 0.1
    assert wanted[0].bound < 0.01 * wanted[0].exact.std()
    for one, each in zip(wanted, found, strict=True):
        one.check(each)


def test_the_decoder_compiles_in_one_piece(sam):
    decoder = PooledDecoder(sam, Engine())
    features, image, boxes = some(4, 2)
    with torch.inference_mode():
        prompts, _ = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
        keys = decoder.places(features).index_select(0, image)
        wanted = decoder.decode(keys, prompts)  # tries out, too, which kernels there are, as loading a model does
        whole = torch.compile(decoder.decode, backend="eager", fullgraph=True)
        for found, expected in zip(whole(keys, prompts), wanted, strict=True):
            torch.testing.assert_close(found, expected)  # the same kernels on the same shapes


def test_nothing_crosses_between_images_and_logits():
    segmenter = load_segmenter(SegmenterConfig(), Runtime("cpu", "fp32", REFERENCE))
    assert isinstance(segmenter, SamSegmenter)
    sam, cuda = segmenter._sam, FakeCuda()
    install(sam, Runtime("cuda:0", "fp32"))
    cuda.model(sam)
    with cuda.mode:
        decoder = PooledDecoder(sam, Engine())
        side = sam.image_encoder.img_size
        image = torch.zeros(3, side, side - 3, dtype=torch.uint8, device="cuda")
        owners, boxes = torch.zeros(5, dtype=torch.int64, device="cuda"), torch.zeros(5, 4, device="cuda")

        def forward():
            features = sam.image_encoder(torch.stack([sam.preprocess(image)] * 2))
            logits, _ = decoder(decoder.places(features), owners, boxes)
            assert logits.device == torch.device("cuda", 0)

        assert crossings_of(forward) == []

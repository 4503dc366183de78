"""The pooled decoder against the package's, box by box."""

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from tasks.models.engine.switches import Engine
from tasks.models.sam.fast.pooled_decoder import PooledDecoder
from tests.float_bounds import bounded
from tests.tasks.models.sam.exact import exact_sam


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
    monkeypatch.setattr("tasks.models.sam.fast.pooled_decoder.compiled", lambda function, *_: function)
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

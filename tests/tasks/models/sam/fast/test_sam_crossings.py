"""Encoder and decoder neither bring anything to a GPU nor wait for it; seen without one."""

import torch

from schemas.campaign import SegmenterConfig
from tasks.models.engine.switches import REFERENCE, Engine
from tasks.models.registry import load_segmenter
from tasks.models.runtime import Runtime
from tasks.models.sam.backend import SamSegmenter
from tasks.models.sam.fast.install import install
from tasks.models.sam.fast.pooled_decoder import PooledDecoder
from tests.tasks.models.fake_cuda import FakeCuda, crossings_of


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

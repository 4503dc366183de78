"""CLIP's image tower neither brings anything to a GPU nor waits for it; seen without one."""

import torch

from schemas.campaign import ScorerConfig
from tasks.models.engine.switches import REFERENCE
from tasks.models.open_clip import OpenClipScorer
from tasks.models.open_clip_fast import install
from tasks.models.registry import load_scorer
from tasks.models.runtime import Runtime
from tests.tasks.models.fake_cuda import FakeCuda, crossings_of


def test_nothing_crosses_between_crops_and_features():
    scorer = load_scorer(ScorerConfig(), Runtime("cpu", "fp32", REFERENCE))
    assert isinstance(scorer, OpenClipScorer)
    cuda = FakeCuda()
    install(scorer._model, Runtime("cuda:0", "fp32"))
    cuda.model(scorer._model)
    mean, std = cuda.tensors((scorer._mean, scorer._std))
    with cuda.mode:
        crops = torch.zeros(3, 3, scorer._side, scorer._side, device="cuda")

        def forward():
            features = scorer._model.encode_image((crops / 255 - mean) / std, normalize=False)
            assert features.device == torch.device("cuda", 0)

        assert crossings_of(forward) == []

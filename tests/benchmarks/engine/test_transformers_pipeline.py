"""transformers' pipeline can be had offline, and runs its model once a class."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.engine.workloads import detect, pipeline_of
from vouch_labels.tasks.models.checkpoints import STARTER


@pytest.mark.slow
def test_it_detects_with_one_pass_a_class():
    from transformers import BertConfig, SwinConfig

    sizes = {
        "backbone_config": SwinConfig(
            image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, out_indices=[2, 3, 4]
        ),
        "text_config": BertConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=30522
        ),
        "num_queries": 15,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
    }
    pipe = pipeline_of(STARTER / "tokenizer", "cpu", sizes, shortest=64)
    passes = []
    pipe.model.register_forward_hook(lambda *_: passes.append(1))
    images = [Image.fromarray(np.zeros((48, 80, 3), np.uint8))] * 2
    detect(pipe, images, ["cat", "dog", "bird"])()
    assert len(passes) == 6

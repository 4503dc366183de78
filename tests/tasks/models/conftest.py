"""A tiny tokenizer and tiny architectures of the real classes."""

import string
from pathlib import Path
from typing import Any

import pytest

WORDS = (
    "a an the of red green blue fire hydrant truck dog hot cat wolf person man bicycle tabby photo car traffic light "
    "bear polar teddy st bernard"
)


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a BERT tokenizer: a few whole words, and single characters for all others."""
    from transformers import BertTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation]
    characters = string.ascii_lowercase + string.digits
    pieces += [*characters, *("##" + character for character in characters), *WORDS.split()]
    vocabulary = list(dict.fromkeys(pieces))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(
        vocab={piece: number for number, piece in enumerate(vocabulary)}, do_lower_case=True, model_max_length=256
    )
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_groundingdino() -> dict[str, Any]:
    """The JSON of a GroundingDINO of about two million parameters that looks at 64 to 128 pixels."""
    return {
        "groundingdino": {
            "enc_layers": 1,
            "dec_layers": 2,
            "dim_feedforward": 64,
            "nheads": 4,
            "num_queries": 20,
            "num_feature_levels": 4,
            "enc_n_points": 2,
            "dec_n_points": 2,
        },
        "swin": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4},
        "bert": {
            "vocab_size": 200,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 256,
        },
        "resize": {"short_side": 64, "long_side": 128},
    }

"""A tiny tokenizer, tiny architectures of the real classes, and a CUDA device without one."""

import string
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

WORDS = (
    "a an the of red green blue fire hydrant truck dog hot cat wolf person man bicycle tabby photo car traffic light "
    "bear polar teddy st bernard"
)
WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero")
"""Operations whose answers the host waits for."""


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


class FakeCuda:
    """Moves models and tensors to a device that is not there."""

    def __init__(self) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)

    def tensors(self, tree: Any) -> Any:
        """A tree with its tensors on the device."""
        return tree_map(lambda leaf: self._there(leaf) if isinstance(leaf, Tensor) else leaf, tree)

    def model(self, model: nn.Module) -> None:
        """Move a model's parameters and buffers, in place: it is of no use elsewhere any more."""
        for module in model.modules():
            for name, value in module._parameters.items():
                if value is not None:
                    module._parameters[name] = nn.Parameter(self._there(value), requires_grad=False)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = self._there(buffer)

    def _there(self, value: Tensor) -> Tensor:
        with self.mode:
            return self.mode.from_tensor(value.detach().clone()).to("cuda")


class Crossings(TorchDispatchMode):
    """Notes each operation between host and device, and each that the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, answer)) if isinstance(leaf, Tensor)]
        if len({tensor.device.type for tensor in tensors}) > 1 or str(func).startswith(WAITS):
            self.seen.append(str(func))
        return answer


def crossings_of(function: Any, *args: Any) -> list[str]:
    """What crosses in the second call, when what is kept by shape is there."""
    with torch.no_grad():
        function(*args)
        with Crossings() as crossings:
            function(*args)
    return crossings.seen

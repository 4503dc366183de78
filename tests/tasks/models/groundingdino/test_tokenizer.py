import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from schemas.errors import CheckpointError
from tasks.models.groundingdino.tokenizer import tokenizer_folder
from tasks.models.weights.weights import Weights


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    monkeypatch.setenv("VOUCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "models").mkdir()
    return Weights(tmp_path / "models" / "w.pth", "", None, "test")


def test_folder_given_or_beside_the_checkpoint(weights: Weights, tiny_tokenizer: Path) -> None:
    assert tokenizer_folder(str(tiny_tokenizer), weights) == tiny_tokenizer
    beside = weights.path.parent / "tokenizer"
    shutil.copytree(tiny_tokenizer, beside)
    assert tokenizer_folder(None, weights) == beside
    assert tokenizer_folder(str(tiny_tokenizer), weights) == tiny_tokenizer


def test_published_one_put_by_hand(weights: Weights, tiny_tokenizer: Path, tmp_path: Path) -> None:
    by_hand = tmp_path / "cache" / "tokenizers" / "bert-base-uncased"
    shutil.copytree(tiny_tokenizer, by_hand)
    assert tokenizer_folder(None, weights) == by_hand


def test_absent_offline_is_one_line(weights: Weights) -> None:
    with pytest.raises(CheckpointError, match="bert-base-uncased is not on this machine and the hub cannot") as raised:
        tokenizer_folder(None, weights)
    assert "\n" not in str(raised.value)
    assert "http" not in str(raised.value)


def test_folder_without_a_tokenizer(weights: Weights, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no tokenizer\.json or vocab\.txt"):
        tokenizer_folder(str(tmp_path / "models"), weights)

import os
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vouch_labels.schemas.errors import CheckpointError
from vouch_labels.tasks.models.checkpoints import Weights
from vouch_labels.tasks.models.state_dict import load_into, read_state_dict


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def weights(path: Path) -> Weights:
    return Weights(path, "0" * 64, "tiny", "test")


def message_of(path: Path) -> str:
    with pytest.raises(CheckpointError) as raised:
        read_state_dict(weights(path))
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)
    return str(raised.value)


TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrapped",
    [
        TENSORS,
        {"model": TENSORS, "epoch": 3},
        {"state_dict": {f"module.{name}": value for name, value in TENSORS.items()}},
        {"model": {f"module.{name}": value for name, value in TENSORS.items()}, "optimizer": {"lr": 1}},
    ],
)
def test_wrappings_come_off(tmp_path: Path, wrapped: dict[str, Any], zipped: bool) -> None:
    torch.save(wrapped, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    state = read_state_dict(weights(tmp_path / "w.pth"))
    assert state.keys() == TENSORS.keys()
    assert all(torch.equal(state[name], TENSORS[name]) for name in TENSORS)


def test_safetensors_under_any_name(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.bin")
    assert torch.equal(read_state_dict(weights(tmp_path / "w.bin"))["a.weight"], TENSORS["a.weight"])


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    torch.save({"model": Evil(tmp_path / "ran")}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    message = message_of(tmp_path / "w.pth")
    assert "would run code (posix.mkdir)" in message
    assert not (tmp_path / "ran").exists()


def test_bare_pickle_and_foreign_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    assert "refused" in message_of(tmp_path / "raw.pth")
    assert not (tmp_path / "ran").exists()
    torch.save({"model": TENSORS, "args": Namespace(lr=1)}, tmp_path / "args.pth")
    assert "argparse.Namespace" in message_of(tmp_path / "args.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    assert "refused" in message_of(tmp_path / "module.pth")
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pth")
    assert "refused" in message_of(tmp_path / "script.pth")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / "w"
    big = {"model": {"a": torch.ones(5000)}}
    if kind == "safetensors":
        save_file(big["model"], path)
    else:
        torch.save(big, path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "truncated or damaged; fetch it again" in message_of(path)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert "it is empty" in message_of(tmp_path / "empty")
    (tmp_path / "pointer").write_text("version 1\noid sha256:12\n")
    assert "is no checkpoint" in message_of(tmp_path / "pointer")
    torch.save({"epoch": 3}, tmp_path / "none")
    assert "holds no named tensors" in message_of(tmp_path / "none")
    torch.save([torch.ones(2)], tmp_path / "list")
    assert "holds no named tensors" in message_of(tmp_path / "list")
    assert "cannot read" in message_of(tmp_path / "gone")


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 2)


def test_half_precision_is_widened_and_ignored_names_may_stay(tmp_path: Path) -> None:
    model = Model()
    state = {**{name: value.half() for name, value in TENSORS.items()}, "position_ids": torch.arange(3)}
    load_into(model, state, weights(tmp_path), ignore={"position_ids"})
    assert model.a.weight.dtype == torch.float32
    assert torch.equal(model.a.weight, TENSORS["a.weight"])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a.weight": TENSORS["a.weight"]}, "1 of 2 tensors fit; first difference: a.bias is missing"),
        ({**TENSORS, "a.bias": torch.ones(5)}, "1 of 2 tensors fit; first difference: a.bias is 5 where 2 is wanted"),
        ({**TENSORS, "b": torch.ones(5)}, "2 of 2 tensors fit; first difference: b has no place"),
        ({"x": torch.ones(())}, "0 of 2 tensors fit; first difference: a.weight is missing"),
    ],
)
def test_another_architecture_is_said(tmp_path: Path, state: dict[str, torch.Tensor], message: str) -> None:
    model = Model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as raised:
        load_into(model, state, weights(tmp_path / "w.pth"))
    assert f"is of another architecture than tiny ({message})" in str(raised.value)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

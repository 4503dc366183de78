"""Reads a checkpoint's tensors without running code in it, and loads them into a model or says why they do not fit."""

import pickle
import re
import zipfile
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from vouch_labels.schemas.errors import CheckpointError
from vouch_labels.tasks.models.checkpoints import Weights

if TYPE_CHECKING:
    from torch import Tensor, nn


def read_state_dict(weights: Weights) -> dict[str, "Tensor"]:
    """Tensors of a checkpoint by name, on the CPU.

    Reads safetensors and torch files (recognised by their first bytes, not by name), the latter with
    `weights_only`. The wrappings {"model": ...} and {"state_dict": ...} and a "module." before every name, as
    training scripts leave them, are taken off. New-style torch files are mapped, not read into memory.

    Raises:
        CheckpointError: The file is damaged, is no checkpoint, or needs code to be unpickled.
    """
    path = weights.path
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}; check its rights") from error
    if head[8:9] == b"{":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return _plain_names(load_file(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(_damaged(weights)) from error
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        return _plain_names(_unwrap(_read_torch(weights), weights))
    raise CheckpointError(
        f"{path} is no checkpoint ({'it is empty' if not head else 'neither safetensors nor a torch file'}); "
        "fetch it again"
    )


def _read_torch(weights: Weights) -> object:
    import torch

    try:
        zipped = zipfile.is_zipfile(weights.path)
        return torch.load(weights.path, map_location="cpu", weights_only=True, mmap=zipped)
    except (pickle.UnpicklingError, RuntimeError) as error:
        if "weights_only" not in str(error):  # torch's own message when it refuses
            raise CheckpointError(_damaged(weights)) from error
        named = re.search(r"(?:GLOBAL|global:?|class) ([\w]+\.[\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise CheckpointError(
            f"{weights.path} was refused: reading it would run code{what}; "
            "save its tensors alone, as safetensors, in a place where you trust it"
        ) from error
    except (OSError, EOFError, LookupError, ValueError, TypeError, AttributeError) as error:
        # A cut or overwritten pickle fails in any of these ways.
        raise CheckpointError(_damaged(weights)) from error


def _damaged(weights: Weights) -> str:
    return f"{weights.path} is truncated or damaged; fetch it again ({weights.source})"


def _unwrap(loaded: object, weights: Weights) -> dict[str, "Tensor"]:
    from torch import Tensor

    inner = loaded
    for name in ("model", "state_dict", "model"):
        if isinstance(inner, Mapping) and isinstance(inner.get(name), Mapping):
            inner = inner[name]
    tensors = (
        {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
        if isinstance(inner, Mapping)
        else {}
    )
    if not tensors:
        raise CheckpointError(f"{weights.path} holds no named tensors; give a checkpoint with the model's weights")
    return tensors


def _plain_names(state: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): value for name, value in state.items()}
    return state


def load_into(
    model: "nn.Module", state: Mapping[str, "Tensor"], weights: Weights, ignore: Collection[str] = ()
) -> None:
    """Copy every tensor of a checkpoint into the model, in the model's own number format (fp32).

    `ignore` names what the model may lack: buffers of older versions, training-only heads.

    Raises:
        CheckpointError: A tensor is missing, is of another shape, or has no place in the model.
    """
    wanted = model.state_dict()
    differences = [
        *(f"{name} is missing" for name in wanted if name not in state),
        *(
            f"{name} is {_shape(state[name])} where {_shape(wanted[name])} is wanted"
            for name in wanted
            if name in state and state[name].shape != wanted[name].shape
        ),
        *(f"{name} has no place" for name in state if name not in wanted and name not in ignore),
    ]
    if differences:
        fit = sum(name in state and state[name].shape == value.shape for name, value in wanted.items())
        raise CheckpointError(
            f"{weights.path} is of another architecture than {weights.architecture or 'the one asked for'} "
            f"({fit} of {len(wanted)} tensors fit; "
            f"first difference: {differences[0]}); set the model's architecture to the checkpoint's own"
        )
    model.load_state_dict({name: state[name].to(value.dtype) for name, value in wanted.items()})


def _shape(tensor: "Tensor") -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"

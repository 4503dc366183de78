"""Puts a checkpoint's tensors into a model, or says why they do not fit."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from schemas.errors import CheckpointError
from tasks.models.weights.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_into(
    model: "nn.Module", state: Mapping[str, "Tensor"], weights: Weights, ignore: Collection[str] = ()
) -> None:
    """Copy every tensor of a checkpoint into the model, in the model's own number format (fp32).

    Args:
        model: Built with the architecture that the checkpoint is said to have.
        state: As `read_state_dict` returns it.
        weights: Where it came from, for the message.
        ignore: Names in the checkpoint that the model may lack: buffers of older versions, training-only heads.

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
            f"{weights.path} is of another architecture than {_name(weights)} ({fit} of {len(wanted)} tensors fit; "
            f"first difference: {differences[0]}); set the model's architecture to the checkpoint's own"
        )
    model.load_state_dict({name: state[name].to(value.dtype) for name, value in wanted.items()})


def _shape(tensor: "Tensor") -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _name(weights: Weights) -> str:
    return str(weights.architecture) if weights.architecture is not None else "the one asked for"

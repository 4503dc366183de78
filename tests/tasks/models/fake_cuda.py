"""A CUDA device without one: torch's fake tensors go the ways of a GPU, and what crosses to the host is counted."""

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero")
"""Operations whose answers the host waits for."""


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

"""Linear layers by the kernel that is fastest on a CPU in fp32."""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import Tensor, nn

_FOUND: Final[list[bool]] = []
"""Whether there is the kernel, once that is known."""


def install_onednn(model: "nn.Module") -> None:
    """Let the torch.nn.Linear layers of a model compute by `linear`; weights and their names stay."""
    from torch import nn

    if has_onednn():
        for module in model.modules():
            if type(module) is nn.Linear:
                _install(module)


def linear(inputs: "Tensor", weight: "Tensor", bias: "Tensor | None", gelu: bool = False) -> "Tensor":
    """Compute inputs @ weight.T + bias, then GELU if asked for.

    On a CPU in fp32 torch.nn.functional.linear calls MKL, which on processors other than Intel's leaves AVX-512 unused:
    half the speed of oneDNN. Everything else goes torch's own way. Results differ in the last bits only.

    Args:
        inputs: (..., I).
        weight: (O, I).
        bias: (O,) or None.
        gelu: Whether the exact GELU follows.

    Returns:
        (..., O).
    """
    import torch

    on_cpu = inputs.is_cpu and inputs.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if on_cpu and inputs.numel() and has_onednn():
        after = "gelu" if gelu else "none"
        found: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, after, [], "none")
        return found
    found = torch.nn.functional.linear(inputs, weight, bias)
    return torch.nn.functional.gelu(found) if gelu else found


def has_onednn() -> bool:
    """Tell whether this torch has the kernel, under the name that torch's own compiler calls it by, and it computes."""
    # A list, since what is compiled can read one and cannot try out a kernel.
    if not _FOUND:
        _FOUND.append(_try_onednn())
    return _FOUND[0]


def _try_onednn() -> bool:
    import torch

    try:
        ones = torch.ones(2, 2)
        found: Any = torch.ops.mkldnn._linear_pointwise(ones, ones, None, "none", [], "none")
    except (AttributeError, RuntimeError):  # NotImplementedError included: another processor, or a later torch
        return False
    return bool((found == 2).all())


def _install(layer: "nn.Linear") -> None:
    def forward(inputs: "Tensor") -> "Tensor":
        return linear(inputs, layer.weight, layer.bias)

    setattr(layer, "forward", forward)  # noqa: B010 - mypy takes the plain assignment for a mistake

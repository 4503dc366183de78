"""How far floating-point results may be from the exact ones, from the arithmetic and not from a machine.

Kernels differ by processor, number of threads and batch size in the order in which they sum, and so in the last bits.
How far they may differ follows from the unit roundoff u of the type, the numbers of terms and the magnitudes, all of
which are known: what is tested is compared with the same thing computed in float64, whose own error is 2**-29 of
float32's, and must be within such a bound of it. Two kinds are used.

Single sums of products: whatever the order of summation, with or without fused multiply-adds, a product of matrices of
inner size n is within gamma(n) |A||B| of the exact one, gamma(n) = n u / (1 - n u) (Higham, Accuracy and Stability of
Numerical Algorithms, 2nd edition, 2002, section 3.1 and (3.13)).

Chains of operations, up to whole models: the worst case of each operation passed on to the end would allow anything,
as no computation has all its errors in the worst direction at once. `bounded` passes on the errors themselves instead:
it runs the float64 computation again while every operation's result is moved by a random error as large as that
operation makes in the narrower type, and sees how far the ends move. That is a first-order error analysis, with
the condition of the very computation at the very input (Parker, Monte Carlo arithmetic, 1997). Sums of n terms are
moved by up to sqrt(n) u times the greatest partial sum: n roundings that have no common direction make no more (Higham
and Mary, A new approach to probabilistic rounding error analysis, SIAM J. Sci. Comput. 41, 2019).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

U64 = 2.0**-53
"""Unit roundoff of float64."""
U32 = 2.0**-24
"""Unit roundoff of float32."""
UBF16 = 2.0**-8
"""Unit roundoff of bfloat16: it keeps 8 bits."""
DRAWS = 2
SPREAD = 4.0
"""Times the greatest deviation drawn of any number: the kernels' own errors are one more draw, from a narrower law."""


def gamma(terms: int, unit: float = U32) -> float:
    """Bound of the relative error of `terms` roundings in a row."""
    return terms * unit / (1 - terms * unit)


def assert_product(found: Tensor, left: Tensor, right: Tensor, bias: Tensor) -> None:
    """Assert that `found` is left @ right + bias, summed in float32."""
    left, right, bias = left.double(), right.double(), bias.double()
    size = left.abs() @ right.abs() + bias.abs()
    assert_within(found, left @ right + bias, gamma(left.shape[-1] + 1) * size)


def assert_within(found: Tensor, exact: Tensor, bound: Tensor | float) -> None:
    """Assert that every number of `found` is within its bound of the exact one."""
    assert found.shape == exact.shape
    away = (found.detach().cpu().double() - exact).abs()
    # A bound of 0 stands where there is nothing to sum: 0 is exact. NaN is never within.
    within = away <= torch.as_tensor(bound, dtype=torch.float64)
    if not within.all():
        worst = (away / torch.as_tensor(bound, dtype=torch.float64)).nan_to_num(nan=math.inf).max()
        raise AssertionError(
            f"{int((~within).sum())} of {within.numel()} numbers are further from the exact ones than by rounding: "
            f"by up to {away.max():.3g}, {worst:.3g} times what is allowed"
        )


class Bounded(NamedTuple):
    """The exact result of a computation, and how far a narrower type may be from it."""

    exact: Tensor
    """float64."""
    bound: float
    """Of any of its numbers."""

    def check(self, found: Tensor, times: float = 1.0) -> None:
        """Assert that a result is this one but for rounding; `times` 2 where `exact` is itself as inexact."""
        assert_within(found, self.exact, times * self.bound)


def bounded(
    function: Callable[[], Iterable[Tensor]], unit: float = U32, sums: float = U32, wide: bool = True
) -> list[Bounded]:
    """Bound each result of a function that computes in float64 what is tested in a narrower type.

    Args:
        function: Gives the results; must take the same decisions each time, so pin what sorts or selects.
        unit: Unit roundoff of the narrower type, in which results are stored.
        sums: Unit roundoff of the type that sums are kept in before that: products of bfloat16 are summed in float32.
        wide: False where the function computes in float32 itself, as models do whose float64 would take many minutes.
            It is as inexact as what is tested then, so the bound is twice as large.
    """
    default, fused = torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # attention in one piece
    if wide:
        torch.set_default_dtype(torch.float64)  # for tensors that models make as they go
    try:
        # In inference mode operations come in one piece that are made of others, whose errors would not be seen.
        with torch.inference_mode(False), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            exact = [each.to(torch.float64, copy=True) for each in function()]
            moved = []
            for seed in range(DRAWS if wide else 1):
                with _Errors(unit, sums, seed):
                    moved.append([each.to(torch.float64, copy=True) for each in function()])
    finally:
        torch.set_default_dtype(default)
        torch.backends.mha.set_fastpath_enabled(fused)
    return [
        Bounded(value, (1 if wide else 2) * SPREAD * max(float((draw[place] - value).abs().max()) for draw in moved))
        for place, value in enumerate(exact)
    ]


def in_float64(module: nn.Module) -> Any:
    """A copy of a model that computes in float64 throughout; heads that widen or narrow to float32 do not any more."""
    import copy

    exact = copy.deepcopy(module)
    for part in exact.modules():
        part.__dict__.pop("forward", None)
    return exact.double().eval()


_EXACT = {
    "abs", "alias", "amax", "amin", "arange", "bernoulli_", "cat", "clamp", "clamp_", "clamp_min", "clamp_max", "clone",
    "constant_pad_nd", "copy_", "detach", "embedding", "empty", "empty_like", "fill_", "flip", "floor", "full",
    "full_like", "gather", "index", "index_put_", "index_select", "masked_fill", "masked_fill_", "max", "maximum",
    "max_pool2d_with_indices", "min", "minimum", "neg", "new_empty", "new_full", "new_ones", "new_zeros", "ones",
    "ones_like", "relu", "relu_", "repeat", "roll", "round", "scalar_tensor", "scatter", "sign", "sort", "split",
    "stack", "topk", "where", "zero_", "zeros", "zeros_like", "_to_copy", "_unsafe_view",
}  # fmt: skip
"""Operations that round nothing."""
_PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "convolution": None}
"""Products: which argument's last axis is summed over."""
_SUMS = {
    "sum",
    "mean",
    "cumsum",
    "linalg_vector_norm",
    "norm",
    "avg_pool2d",
    "_adaptive_avg_pool2d",
    "adaptive_avg_pool2d",
}
_PLACED = {"grid_sampler_2d", "upsample_bicubic2d", "upsample_bilinear2d", "_upsample_bicubic2d_aa"}
"""Interpolation, at places that are themselves computed."""


class _Errors(TorchDispatchMode):
    """Moves the result of every operation by a random error as large as a narrower type makes in it."""

    def __init__(self, unit: float, sums: float, seed: int) -> None:
        super().__init__()
        self._unit, self._inner, self._draw = unit, sums / unit, torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        inputs = [each for each in args if isinstance(each, Tensor)]
        # What writes into its argument has lost it afterwards.
        before = inputs[0].clone() if inputs and func._schema.is_mutable else None
        found = func(*args, **kwargs)
        first = found[0] if isinstance(found, (tuple, list)) and found else found
        if name in _EXACT or not isinstance(first, Tensor) or not first.is_floating_point() or not first.numel():
            return found
        places = {each.untyped_storage().data_ptr() for each in inputs}
        if not func._schema.is_mutable and first.untyped_storage().data_ptr() in places:
            return found  # a view
        bound = self._bound(name, func, args, kwargs, found, before) * self._unit
        drawn = torch.rand(first.shape, generator=self._draw, dtype=first.dtype) * 2 - 1
        first.add_((bound * drawn).nan_to_num_(0, 0, 0))
        return found

    def _bound(
        self, name: str, func: Any, args: Sequence[Any], kwargs: Any, found: Any, before: Tensor | None
    ) -> Tensor:
        """How large an error an operation makes, in units of the roundoff."""
        if name in _PRODUCTS:
            place = _PRODUCTS[name]
            terms = args[1][0].numel() if place is None else args[place].shape[-1]
            squares = func(*map(_squared, args), **{key: _squared(value) for key, value in kwargs.items()})
            # Terms in no particular order: on its way a sum gets about this far beside where it ends.
            return found.abs() + self._inner * math.sqrt(terms) * (found.abs() + 2 * squares.sqrt())
        if name in _SUMS and not args[0].is_floating_point():
            return torch.zeros_like(found)  # counts are exact
        if name in _SUMS:
            terms = args[0].shape[args[1]] if name == "cumsum" else args[0].numel() // found.numel()
            return found.abs() + self._inner * math.sqrt(terms) * func(args[0].abs(), *args[1:], **kwargs)
        if name == "native_layer_norm":
            return _of_norm(args[0], found, args[2])
        if name == "native_group_norm":
            weight = args[1]
            return _of_norm(args[0], found, None if weight is None else weight.view(-1, *[1] * (args[0].dim() - 2)))
        if "batch_norm" in name:
            scale = args[1].abs() / (args[4] + args[-1]).sqrt()
            across = (1, -1, *[1] * (args[0].dim() - 2))
            return 4 * ((args[0].abs() + args[3].abs().view(across)) * scale.view(across) + args[2].abs().view(across))
        if name == "_softmax":
            # exp(x - max) errs by what the difference does, beside its own units and those of the sum.
            below = args[0].amax(args[1], keepdim=True) - args[0]
            return found * (1 + self._inner * (math.sqrt(args[0].shape[args[1]]) + 4 + below))
        if name in _PLACED:
            source = args[0]
            return torch.full_like(found, (16 + 3 * max(source.shape[-2:])) * float(source.abs().max()))
        if name in ("gelu", "gelu_"):
            return 2 * (args[0] if before is None else before).abs()
        if name in ("exp", "sin", "cos", "tanh", "erf", "sigmoid", "sigmoid_", "log", "rsqrt", "sqrt", "pow", "log1p"):
            return 4 * found.abs()  # libraries of vector functions guarantee one to four units
        first = found[0] if isinstance(found, (tuple, list)) else found
        return first.abs().masked_fill(first == first.round(), 0)  # whole numbers, such as indices, are exact


def _squared(value: Any) -> Any:
    return value**2 if isinstance(value, (Tensor, float)) else value


def _of_norm(values: Tensor, found: Sequence[Tensor], weight: Tensor | None) -> Tensor:
    """Mean and variance are sums of as many terms as are normalised together."""
    out, mean, rstd = found
    groups = values.reshape(mean.numel(), -1)
    mean, rstd = mean.reshape(-1, 1), rstd.reshape(-1, 1)
    size = groups.abs().mean(1, keepdim=True) * rstd + ((groups - mean) * rstd).abs()
    size = math.sqrt(groups.shape[1]) * size.view_as(values)
    return (size if weight is None else size * weight.abs()) + 2 * out.abs()

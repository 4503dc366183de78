"""Compiles functions of the models once they have been called often enough to pay off, and replaces parts of them.

Linear layers run by the kernel that is fastest on a CPU in fp32; heads that need it stay in fp32 under autocast.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from functools import cache
from threading import Lock
from typing import Any, Final, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from vouch_labels.tasks.models.checkpoints import cache_folder
from vouch_labels.tasks.models.runtime import Engine

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

MOST_SHAPES: Final = 16
"""Shapes of one function that are compiled, each of which takes up to minutes; others run as they are."""
RECOMPILES: Final = 256
"""Variants of one piece of code that torch keeps: layers that share it count together."""

_FAILED: Final[list[str]] = []
"""What could not be compiled, once something could not: models have up to a hundred layers for the same compiler."""
_LOCK: Final = Lock()
"""Of `_FAILED`: models run in threads of their own."""

_FOUND: Final[list[bool]] = []
"""Whether there is the kernel, once that is known."""


def compiled(function: Callable[P, R], engine: Engine, name: str, mode: str = "default") -> Callable[P, R]:
    """Give back a function that compiles itself, or the function itself where compiling is off.

    What torch makes is kept on disk between runs (in `VOUCH_CACHE`/compiled, else ~/.cache/vouch/compiled). The
    function is of tensors whose shapes are few. When it cannot be compiled, a warning names it, and no other one is
    tried any more.
    """
    if not engine.compile:
        return function
    _keep_on_disk()
    return Compiled(function, name, engine.compile_after, mode)


class Compiled(Generic[P, R]):
    """A function that runs as it is for a while, then compiled; for good as it is when that, or another's, fails.

    Shapes of other functions that were compiled before the failure stay compiled.
    """

    def __init__(self, function: Callable[P, R], name: str, after: int, mode: str) -> None:
        """Nothing is compiled before the first call past `after` with the same shapes."""
        self._function = function
        self._name = name
        self._after = after
        self._mode = mode
        self._calls: Counter[Hashable] = Counter()
        self._shapes: set[Hashable] = set()
        self._fast: Callable[P, R] | None = None
        self._failed = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, compiled or not."""
        if self._failed or not self._is_due(shape_of((args, kwargs))):
            return self._function(*args, **kwargs)

        try:
            if self._fast is None:
                self._fast = torch.compile(self._function, dynamic=False, mode=self._mode)
            return self._fast(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            trouble = error
        # An error that is the function's own comes again here, and is the caller's.
        answer = self._function(*args, **kwargs)
        self._failed = True
        with _LOCK:
            first = not _FAILED
            _FAILED.append(self._name)
        if first:
            reason = f"{type(trouble).__name__}: {' '.join(str(trouble).split())[:200]}"
            logger.warning("%s cannot be compiled; it runs as it is, and so does all else: %s", self._name, reason)
        return answer

    def _is_due(self, shape: Hashable) -> bool:
        if shape in self._shapes:
            return True
        if _FAILED:
            return False
        self._calls[shape] += 1
        if self._calls[shape] <= self._after or len(self._shapes) >= MOST_SHAPES:
            return False
        self._shapes.add(shape)
        return True


def shape_of(value: object) -> Hashable:
    """What a compiled function is specialised for: shapes and types of tensors, and plain values."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.dtype)
    if isinstance(value, tuple | list):
        return tuple(shape_of(each) for each in value)
    if isinstance(value, dict):
        return tuple((key, shape_of(each)) for key, each in value.items())
    if isinstance(value, int | float | str):
        return value
    return type(value).__qualname__


@cache
def _keep_on_disk() -> None:
    folder = cache_folder() / "compiled"
    # Without a place of our own torch uses the machine's temporary files, and settles that when its compiler is
    # imported.
    with suppress(OSError):
        for variable, part in (("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton")):
            (folder / part).mkdir(parents=True, exist_ok=True)
            os.environ.setdefault(variable, str(folder / part))
    import torch._dynamo

    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, RECOMPILES)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 4 * RECOMPILES)


def install_onednn(model: "nn.Module") -> None:
    """Let the torch.nn.Linear layers of a model compute by `linear`; weights and their names stay."""
    if has_onednn():
        for module in model.modules():
            if type(module) is nn.Linear:
                _install(module)


def linear(inputs: "Tensor", weight: "Tensor", bias: "Tensor | None", gelu: bool = False) -> "Tensor":
    """Compute (..., I) inputs @ (O, I) weight.T + (O,) bias, then the exact GELU if asked for: (..., O).

    On a CPU in fp32 torch.nn.functional.linear calls MKL, which on processors other than Intel's leaves AVX-512 unused:
    half the speed of oneDNN. Everything else goes torch's own way. Results differ in the last bits only.
    """
    on_cpu = inputs.is_cpu and inputs.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if on_cpu and inputs.numel() and has_onednn():
        after = "gelu" if gelu else "none"
        found: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, after, [], "none")
        return found
    found = torch.nn.functional.linear(inputs, weight, bias)
    return torch.nn.functional.gelu(found) if gelu else found


def has_onednn() -> bool:
    """Whether this torch has the kernel, under the name that torch's own compiler calls it by, and it computes."""
    # A list, since what is compiled can read one and cannot try out a kernel.
    if not _FOUND:
        try:
            ones = torch.ones(2, 2)
            found: Any = torch.ops.mkldnn._linear_pointwise(ones, ones, None, "none", [], "none")
            _FOUND.append(bool((found == 2).all()))
        except (AttributeError, RuntimeError):  # NotImplementedError included: another processor, or a later torch
            _FOUND.append(False)
    return _FOUND[0]


def _install(layer: "nn.Linear") -> None:
    def forward(inputs: "Tensor") -> "Tensor":
        return linear(inputs, layer.weight, layer.bias)

    setattr(layer, "forward", forward)  # noqa: B010 - mypy takes the plain assignment for a mistake


def compute_in_fp32(module: nn.Module) -> None:
    """Make a module compute in fp32 under autocast too, from inputs widened to fp32.

    For heads whose outputs are coordinates or final scores: bf16 has 8 bits, which is 2.6 pixels in 1333.
    """
    compute = module.forward

    def forward(*inputs: object, **named: object) -> object:
        device = next(_tensors([*inputs, *named.values()])).device.type
        with torch.autocast(device, enabled=False):
            return compute(*(_wide(value) for value in inputs), **{name: _wide(value) for name, value in named.items()})

    module.forward = forward


def _wide(value: object) -> object:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    return {name: _wide(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def _tensors(values: list[object]) -> Iterator[Tensor]:
    return (value for value in values if isinstance(value, Tensor))

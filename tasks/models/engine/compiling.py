"""Compiles functions of the models once they have been called often enough to gain by it."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import cache
from threading import Lock
from typing import Any, Final, Generic, ParamSpec, TypeVar

from tasks.models.engine.switches import Engine
from tasks.models.weights.cache import cache_folder

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

logger = logging.getLogger(__name__)


def compiled(function: Callable[P, R], engine: Engine, name: str, mode: str = "default") -> Callable[P, R]:
    """Give back a function that compiles itself, or the function itself where compiling is off.

    What torch makes is kept on disk between runs (in `VOUCH_CACHE`/compiled, else ~/.cache/vouch/compiled).

    Args:
        function: Of tensors, whose shapes are few.
        engine: Whether to compile, and after how many calls of a shape.
        name: What it is, for the warning when it cannot be compiled; then no other function is tried any more.
        mode: torch.compile's.
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
        import torch

        try:
            return self._compile()(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            trouble = error
        # An error that is the function's own comes again here, and is the caller's.
        answer = self._function(*args, **kwargs)
        self._failed = True
        self._give_up(trouble)
        return answer

    def _give_up(self, trouble: Exception) -> None:
        with _LOCK:
            first = not _FAILED
            _FAILED.append(self._name)
        if first:
            words = f"{type(trouble).__name__}: {' '.join(str(trouble).split())[:200]}"
            logger.warning("%s cannot be compiled; it runs as it is, and so does all else: %s", self._name, words)

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

    def _compile(self) -> Callable[P, R]:
        if self._fast is None:
            import torch

            self._fast = torch.compile(self._function, dynamic=False, mode=self._mode)
        return self._fast


def shape_of(value: object) -> Hashable:
    """What a compiled function is specialised for: shapes and types of tensors, and plain values."""
    import torch

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

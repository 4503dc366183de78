"""Functions that compile themselves."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from tasks.models.engine import compiling
from tasks.models.engine.compiling import MOST_SHAPES, Compiled, compiled, shape_of
from tasks.models.engine.switches import Engine
from tests.waiting import HANG_S


@pytest.fixture(autouse=True)
def no_failure(monkeypatch):
    monkeypatch.setattr(compiling, "_FAILED", [])


@pytest.fixture
def compiler(monkeypatch):
    """Stands in for torch's compiler, which takes seconds: counts what it is given and runs it as it is."""

    class Compiler:
        calls = 0
        error: Exception | None = None
        before: Callable[[], object] = staticmethod(lambda: None)

        def __call__(self, function, **options):
            def fast(*args, **kwargs):
                self.calls += 1
                self.before()
                if self.error:
                    raise self.error
                return function(*args, **kwargs)

            return fast

    made = Compiler()
    monkeypatch.setattr(torch, "compile", made)
    return made


def double(x):
    return 2 * x


def test_off_is_the_function_itself():
    assert compiled(double, Engine(), "double") is double


def test_a_shape_is_compiled_after_enough_calls_of_its_own(compiler):
    function = Compiled(double, "double", after=2, mode="default")
    for _ in range(3):
        assert function(torch.ones(2)).tolist() == [2, 2]
    assert compiler.calls == 1
    function(torch.ones(3))
    function(torch.ones(2))
    assert compiler.calls == 2


def test_no_more_than_so_many_shapes_are_compiled(compiler):
    function = Compiled(double, "double", after=0, mode="default")
    for size in range(MOST_SHAPES + 5):
        function(torch.ones(size))
    assert compiler.calls == MOST_SHAPES


def test_a_failure_is_one_warning_and_the_result_is_there(compiler, caplog):
    compiler.error = RuntimeError("no compiler\nhere")
    function = Compiled(double, "GroundingDINO's encoder", after=0, mode="default")
    with caplog.at_level(logging.WARNING):
        results = [function(torch.ones(1)).item() for _ in range(3)]
    assert results == [2, 2, 2]
    assert compiler.calls == 1
    assert [record.message for record in caplog.records] == [
        "GroundingDINO's encoder cannot be compiled; it runs as it is, and so does all else: "
        "RuntimeError: no compiler here"
    ]


def test_all_layers_of_a_model_fail_once(compiler, caplog):
    compiler.error = RuntimeError("no compiler here")
    layers = [compiled(double, Engine(compile=True), f"layer {number}") for number in range(20)]
    for _ in range(3):
        assert [layer(torch.ones(1)).item() for layer in layers] == [2] * 20
    assert compiler.calls == 1
    assert len(caplog.records) == 1


def test_threads_that_fail_together_warn_once(compiler, caplog):
    compiler.error = RuntimeError("no compiler here")
    both = Barrier(2)

    def wait(x):
        both.wait(HANG_S)
        return x

    compiler.before = lambda: both.wait(HANG_S)
    with ThreadPoolExecutor(2) as pool:
        layers = [Compiled(wait, f"layer {number}", after=0, mode="default") for number in range(2)]
        list(pool.map(lambda layer: layer(torch.ones(1)), layers))
    assert compiler.calls == 2
    assert len(caplog.records) == 1


def test_what_was_compiled_before_a_failure_stays(compiler):
    done, other = (Compiled(double, name, after=0, mode="default") for name in ("done", "other"))
    done(torch.ones(1))
    compiler.error = RuntimeError("disk full")
    other(torch.ones(1))
    compiler.error = None
    assert done(torch.ones(1)).item() == done(torch.ones(2))[0].item() == 2
    assert compiler.calls == 3


def test_out_of_memory_is_for_the_batcher(compiler):
    compiler.error = torch.OutOfMemoryError("full")
    function = Compiled(double, "double", after=0, mode="default")
    with pytest.raises(torch.OutOfMemoryError):
        function(torch.ones(1))
    compiler.error = None
    function(torch.ones(1))
    assert compiler.calls == 2


def test_an_error_of_the_function_is_the_callers_and_compiling_goes_on(compiler, caplog):
    def fail(x):
        if x.sum() < 0:
            raise ValueError("below zero")
        return x

    function = Compiled(fail, "fail", after=0, mode="default")
    with pytest.raises(ValueError, match="below zero"):
        function(-torch.ones(1))
    function(torch.ones(1))
    assert compiler.calls == 2
    assert not caplog.records


def test_shapes_tell_all_that_is_specialised():
    x = torch.ones(2, 3)
    assert shape_of([x, {"a": x}, 5]) == shape_of([x + 1, {"a": x}, 5])
    assert len({shape_of(value) for value in ([x], [x.double()], [x.T], [x, 1], [x, 2], [x, None])}) == 6


@pytest.mark.slow
def test_the_real_compiler_agrees_and_keeps_what_it_made(tmp_path, monkeypatch):
    for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setenv("VOUCH_CACHE", str(tmp_path))
    compiling._keep_on_disk.cache_clear()
    function = compiled(lambda x: torch.nn.functional.gelu(x) * 2 + 1, Engine(compile=True), "gelu")
    x = torch.randn(4, 5)
    assert torch.allclose(function(x), torch.nn.functional.gelu(x) * 2 + 1, atol=1e-6)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled" / "inductor")
    assert any((tmp_path / "compiled" / "inductor").iterdir())

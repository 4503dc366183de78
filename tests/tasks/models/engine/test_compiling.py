"""Functions that compile themselves."""

import logging
import os

import pytest
import torch

from tasks.models.engine import compiling
from tasks.models.engine.compiling import MOST_SHAPES, Compiled, compiled, shape_of
from tasks.models.engine.switches import Engine


@pytest.fixture
def compiler(monkeypatch):
    """Stands in for torch's compiler, which takes seconds: counts what it is given and runs it as it is."""

    class Compiler:
        calls = 0
        error: Exception | None = None

        def __call__(self, function, **options):
            def fast(*args, **kwargs):
                self.calls += 1
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
        "GroundingDINO's encoder cannot be compiled and runs as it is: RuntimeError: no compiler here"
    ]


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

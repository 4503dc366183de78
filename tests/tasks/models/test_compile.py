"""Functions that compile themselves.

Linear layers: torch's own results, whichever kernel gives them.
"""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.float_bounds import U32, U64, assert_product, assert_within, bounded, gamma, in_float64
from tests.processes import HANG_S
from vouch_labels.tasks.models import compile
from vouch_labels.tasks.models.compile import (
    MOST_SHAPES,
    Compiled,
    compiled,
    compute_in_fp32,
    has_onednn,
    install_onednn,
    linear,
    shape_of,
)
from vouch_labels.tasks.models.runtime import Engine


@pytest.fixture
def no_failure(monkeypatch):
    monkeypatch.setattr(compile, "_FAILED", [])


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


@pytest.mark.usefixtures("no_failure")
def test_off_is_the_function_itself():
    assert compiled(double, Engine(), "double") is double


@pytest.mark.usefixtures("no_failure")
def test_a_shape_is_compiled_after_enough_calls_of_its_own(compiler):
    function = Compiled(double, "double", after=2, mode="default")
    for _ in range(3):
        assert function(torch.ones(2)).tolist() == [2, 2]
    assert compiler.calls == 1
    function(torch.ones(3))
    function(torch.ones(2))
    assert compiler.calls == 2


@pytest.mark.usefixtures("no_failure")
def test_no_more_than_so_many_shapes_are_compiled(compiler):
    function = Compiled(double, "double", after=0, mode="default")
    for size in range(MOST_SHAPES + 5):
        function(torch.ones(size))
    assert compiler.calls == MOST_SHAPES


@pytest.mark.usefixtures("no_failure")
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


@pytest.mark.usefixtures("no_failure")
def test_all_layers_of_a_model_fail_once(compiler, caplog):
    compiler.error = RuntimeError("no compiler here")
    layers = [compiled(double, Engine(compile=True), f"layer {number}") for number in range(20)]
    for _ in range(3):
        assert [layer(torch.ones(1)).item() for layer in layers] == [2] * 20
    assert compiler.calls == 1
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("no_failure")
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


@pytest.mark.usefixtures("no_failure")
def test_what_was_compiled_before_a_failure_stays(compiler):
    done, other = (Compiled(double, name, after=0, mode="default") for name in ("done", "other"))
    done(torch.ones(1))
    compiler.error = RuntimeError("disk full")
    other(torch.ones(1))
    compiler.error = None
    assert done(torch.ones(1)).item() == done(torch.ones(2))[0].item() == 2
    assert compiler.calls == 3


@pytest.mark.usefixtures("no_failure")
def test_out_of_memory_is_for_the_batcher(compiler):
    compiler.error = torch.OutOfMemoryError("full")
    function = Compiled(double, "double", after=0, mode="default")
    with pytest.raises(torch.OutOfMemoryError):
        function(torch.ones(1))
    compiler.error = None
    function(torch.ones(1))
    assert compiler.calls == 2


@pytest.mark.usefixtures("no_failure")
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


@pytest.mark.usefixtures("no_failure")
def test_shapes_tell_all_that_is_specialised():
    x = torch.ones(2, 3)
    assert shape_of([x, {"a": x}, 5]) == shape_of([x + 1, {"a": x}, 5])
    assert len({shape_of(value) for value in ([x], [x.double()], [x.T], [x, 1], [x, 2], [x, None])}) == 6


@pytest.mark.usefixtures("no_failure")
@pytest.mark.slow
def test_the_real_compiler_agrees_and_keeps_what_it_made(tmp_path, monkeypatch):
    for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setenv("VOUCH_CACHE", str(tmp_path))
    compile._keep_on_disk.cache_clear()
    function = compiled(lambda x: torch.nn.functional.gelu(x) * 2 + 1, Engine(compile=True), "gelu")
    x = torch.randn(4, 5)
    assert torch.allclose(function(x), torch.nn.functional.gelu(x) * 2 + 1, atol=1e-6)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled" / "inductor")
    assert any((tmp_path / "compiled" / "inductor").iterdir())


def assert_linear(found, inputs, weight, bias, gelu=False):
    """Sums of as many products as there are inputs, and one bias."""
    inputs, weight = inputs.double(), weight.double()
    exact, size = inputs @ weight.T, inputs.abs() @ weight.T.abs()
    if bias is not None:
        exact, size = exact + bias, size + bias.abs()
    bound = gamma(weight.shape[1] + 1) * size
    if gelu:
        # The slope of GELU is at most 1.13; it is a product with a value of erf, which is good to a few roundoffs.
        exact, bound = functional.gelu(exact), 1.13 * bound + 8 * U32 * exact.abs()
    assert_within(found, exact, bound)


@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12), (1, 2, 3, 12), (0, 12), (12,)])
@pytest.mark.parametrize("gelu", [False, True])
def test_results_are_torch_s(shape, gelu):
    generator = torch.Generator().manual_seed(1)
    inputs, weight, bias = (torch.randn(size, generator=generator) for size in (shape, (7, 12), (7,)))
    for shift in (bias, None):
        assert_linear(linear(inputs, weight, shift, gelu=gelu), inputs, weight, shift, gelu)


def test_views_do():
    inputs, weight = torch.randn(6, 4, 9).transpose(0, 2), torch.randn(10, 6).T[:, :6].T[:, ::2]
    inputs = inputs[..., ::2]
    assert_linear(linear(inputs, weight, None), inputs, weight, None)


def test_other_types_and_autocast_are_left_to_torch():
    inputs, weight = torch.randn(3, 8), torch.randn(5, 8)
    found = linear(inputs.double(), weight.double(), None)
    assert found.dtype == torch.float64
    bound = gamma(8, U64) * (inputs.double().abs() @ weight.double().T.abs())
    assert ((found - functional.linear(inputs.double(), weight.double())).abs() <= 2 * bound).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear(inputs, weight, None)
    assert found.dtype == torch.bfloat16


def test_gradients_flow_or_are_refused_never_lost():
    weight = torch.randn(5, 8, requires_grad=True)
    found = linear(torch.randn(3, 8), weight, None)
    assert found.requires_grad


def test_layers_of_a_model_keep_their_weights():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    inputs, names = torch.randn(3, 4), list(model.state_dict())
    with torch.inference_mode():
        wide = in_float64(model)
        [wanted] = bounded(lambda: [wide(inputs.double())])
        install_onednn(model)
        wanted.check(model(inputs))
        model[0].weight.zero_()
        assert (model(inputs) - wanted.exact).abs().max() > 100 * wanted.bound
    assert list(model.state_dict()) == names


def test_it_traces_without_a_break():
    weight, bias = torch.randn(5, 8), torch.randn(5)
    has_onednn()
    whole = torch.compile(lambda inputs: linear(inputs, weight, bias, gelu=True), backend="eager", fullgraph=True)
    inputs = torch.randn(3, 8)
    with torch.inference_mode():
        assert_linear(whole(inputs), inputs, weight, bias, gelu=True)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 8)

    def forward(self, states: Tensor, text: dict[str, Tensor], scale: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(states) * scale, text["features"] @ text["features"].T


def test_heads_compute_in_fp32_while_the_rest_does_not() -> None:
    torch.manual_seed(0)
    head, plain = Head(), Head()
    plain.load_state_dict(head.state_dict())
    compute_in_fp32(head)
    states, text = torch.randn(5, 64).bfloat16(), {"features": torch.randn(4, 64).bfloat16()}
    with torch.autocast("cpu", torch.bfloat16):
        exact, rough = head(states, text, scale=torch.tensor(1.0)), plain(states, text, scale=torch.tensor(1.0))
        inside = torch.mm(torch.ones(2, 2), torch.ones(2, 2))
    assert inside.dtype == torch.bfloat16
    assert [value.dtype for value in exact] == [torch.float32, torch.float32]
    weight, bias = head.linear.weight.T, head.linear.bias
    assert_product(exact[0], states, weight, bias)
    with pytest.raises(AssertionError, match="further from the exact ones"):
        assert_product(rough[0], states, weight, bias)
    assert list(head.state_dict()) == ["linear.weight", "linear.bias"]

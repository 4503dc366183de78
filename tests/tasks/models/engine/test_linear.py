"""Linear layers: torch's own results, whichever kernel gives them."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tasks.models.engine.linear import has_onednn, install_onednn, linear
from tests.float_bounds import U32, U64, assert_within, bounded, gamma, in_float64


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

"""Linear layers: torch's own results, whichever kernel gives them."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tasks.models.engine.linear import has_onednn, install_onednn, linear


@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12), (1, 2, 3, 12), (0, 12), (12,)])
@pytest.mark.parametrize("gelu", [False, True])
def test_results_are_torch_s(shape, gelu):
    generator = torch.Generator().manual_seed(1)
    inputs, weight, bias = (torch.randn(size, generator=generator) for size in (shape, (7, 12), (7,)))
    for shift in (bias, None):
        expected = functional.linear(inputs, weight, shift)
        expected = functional.gelu(expected) if gelu else expected
        torch.testing.assert_close(linear(inputs, weight, shift, gelu=gelu), expected, atol=1e-5, rtol=1e-5)


def test_views_do():
    inputs, weight = torch.randn(6, 4, 9).transpose(0, 2), torch.randn(10, 6).T[:, :6].T[:, ::2]
    inputs = inputs[..., ::2]
    torch.testing.assert_close(linear(inputs, weight, None), functional.linear(inputs, weight), atol=1e-5, rtol=1e-5)


def test_other_types_and_autocast_are_left_to_torch():
    inputs, weight = torch.randn(3, 8), torch.randn(5, 8)
    assert torch.equal(
        linear(inputs.double(), weight.double(), None), functional.linear(inputs.double(), weight.double())
    )
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
        expected = model(inputs)
        install_onednn(model)
        torch.testing.assert_close(model(inputs), expected, atol=1e-5, rtol=1e-5)
        model[0].weight.zero_()
        assert not torch.allclose(model(inputs), expected)
    assert list(model.state_dict()) == names


def test_it_traces_without_a_break():
    weight, bias = torch.randn(5, 8), torch.randn(5)
    has_onednn()
    whole = torch.compile(lambda inputs: linear(inputs, weight, bias, gelu=True), backend="eager", fullgraph=True)
    inputs = torch.randn(3, 8)
    with torch.inference_mode():
        torch.testing.assert_close(whole(inputs), linear(inputs, weight, bias, gelu=True))

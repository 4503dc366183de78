import pytest
import torch
from torch import Tensor, nn

from tasks.models.exact import compute_in_fp32
from tests.float_bounds import assert_product


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

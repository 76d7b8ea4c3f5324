"""What computes in float32 whatever autocast, the arguments or the parameters say; and rows of unequal length."""

import pytest
import torch
from torch import nn

from zoo.layers.tensors import in_fp32, put_steps, take_steps, zero_padding, zeros_fp32


class Product(nn.Module):
    """x W n."""

    def __init__(self, dtype):
        super().__init__()
        self.W = nn.Parameter(torch.rand(4, 4).to(dtype))

    @in_fp32
    def forward(self, x, *, n):
        return x @ self.W * n


@pytest.mark.parametrize(("given", "own"), [(torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16)])
def test_a_method_sees_float32(given, own):
    x, product = torch.rand(3, 4).to(given), Product(own)
    with torch.autocast("cpu", torch.bfloat16):
        y = product(x, n=torch.tensor(2))
    torch.testing.assert_close(y, x.float() @ product.W.float() * 2, rtol=0, atol=0)
    y.sum().backward()
    assert product.W.grad.dtype is own


def test_float64_stays_and_functions_are_decorated_alike():
    x = torch.rand(3, 4, dtype=torch.float64)
    assert Product(torch.float64)(x, n=2).dtype is torch.float64
    assert in_fp32(torch.exp)(x.half()).dtype is torch.float32
    assert zeros_fp32(2, 3, device="cpu", dtype=torch.bfloat16).dtype is torch.float32


def test_padding_and_steps_of_rows():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    x = torch.arange(1.0, 13).view(2, 1, 3, 2)  # one head
    assert zero_padding(x, mask, 2)[..., 0].tolist() == [[[1, 3, 0]], [[7, 0, 0]]]
    assert zero_padding(x[:, 0], mask, value=-1.0)[..., 1].tolist() == [[2, 4, -1], [8, -1, -1]]
    at = torch.tensor([[2, 0], [1, 1]])
    assert take_steps(x, at)[..., 0].tolist() == [[[5, 1]], [[9, 9]]]
    put = put_steps(torch.zeros(2, 3, 2), x[:, 0, :2], torch.tensor([[0, 2], [2, 1]]))
    assert put[..., 0].tolist() == [[1, 0, 3], [0, 9, 7]]

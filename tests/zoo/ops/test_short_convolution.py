"""The short convolution, by conv1d and compiled, equals the direct sum: outputs, last state, gradients, precision."""

import pytest
import torch

from zoo.layers.short_convolution import ShortConvolution
from zoo.ops import flops
from zoo.ops.kernel_log import record_kernels
from zoo.ops.short_convolution import Unit, short_convolution, short_convolution_naive

from .conftest import assert_near, assert_same, differentiated, padding

pytestmark = pytest.mark.usefixtures("form")


@pytest.mark.parametrize(("T", "resumed", "loop"), [(1, True, False), (1, False, True), (5, True, True)])
def test_which_form_ran(form, T, resumed, loop):
    with record_kernels() as kernels:
        short_convolution(torch.rand(2, T, 3), torch.rand(3, 4), None, torch.rand(2, 3, 3) if resumed else None)
    assert kernels.get("short_convolution", "torch") == ("compiled loop" if loop and form == "compiled" else "torch")


@pytest.mark.parametrize("rest", ["", "bias", "bias, before", "bias, before, mask"])
@pytest.mark.parametrize("W", [1, 2, 4, 64])
@pytest.mark.parametrize("T", [1, 7, 70])
def test_equals_the_direct_sum(T, W, rest):
    x, w, bias, before = (torch.randn(s, dtype=torch.float64) for s in ((3, T, 70), (70, W), (70,), (3, W - 1, 70)))
    mask = padding(T) if "mask" in rest else None

    def of(form):
        return lambda x, w, bias=None, before=None: form(x, w, bias, before, mask, silu="bias" in rest)

    given = [x, w, bias, before][: 2 + ("bias" in rest) + ("before" in rest)]
    assert_same(of(short_convolution), of(short_convolution_naive), *given)


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("heads", [1, 7, 70])
@pytest.mark.parametrize(("D", "W"), [(70, 4), (560, 1), (560, 9)])
def test_unit_vectors(D, W, heads, silu):
    x, w = torch.randn(3, 21, D).double(), torch.randn(D, W).double()
    how = {"silu": silu, "unit": Unit((0.3, *(0.0, 1.5) * heads)[:heads]), "mask": padding(21)}
    assert_same(lambda *a: short_convolution(*a, **how), lambda *a: short_convolution_naive(*a, **how), x, w)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernel", [2, 4])
def test_the_layer_in_less_precision(dtype, kernel):
    """y, the last state and gradients, of a view whose rows lie apart and hold junk where they are padded."""
    torch.manual_seed(0)
    limit, mask = (2e-5 if dtype is torch.float32 else 1e-2), padding(33)
    x = torch.randn(3, 33, 75).to(dtype).masked_fill(~mask[..., None], float("nan"))
    state, conv = torch.randn(3, 70, kernel - 1).to(dtype).float(), ShortConvolution(70, kernel, bias=True)

    def layer(x, weight, bias, state):
        y, last = torch.func.functional_call(
            conv, {"weight": weight, "bias": bias}, (x[..., 3:-2],), {"mask": mask, "state": state}
        )
        return y, last

    got = differentiated(layer, x, conv.weight.data, conv.bias.data, state)
    want = differentiated(layer, *(x.double() for x in (x, conv.weight.data, conv.bias.data, state)))
    assert got[0].dtype is torch.float32
    assert_near(got, want, limit)


def test_narrow_is_rounded_to_the_dtype_of_x():
    torch.manual_seed(0)
    conv, x = ShortConvolution(70, 4), torch.randn(3, 33, 70).bfloat16().requires_grad_()
    wide, narrow = conv(x)[0], conv(x, narrow=True)[0]
    assert torch.equal(narrow, wide.bfloat16())
    dy = torch.randn(3, 33, 70).bfloat16()
    gradients = (torch.autograd.grad(y, [x, conv.weight], dy.to(y.dtype)) for y in (wide, narrow))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_bfloat16_beside_float64():
    x, w = torch.randn(2, 33, 70).bfloat16(), torch.randn(70, 4).double()
    torch.testing.assert_close(short_convolution(x, w), short_convolution_naive(x.double(), w), rtol=1e-12, atol=1e-12)


def test_reject_other_channels():
    with pytest.raises(ValueError, match="expected"):
        short_convolution(torch.rand(2, 5, 3), torch.rand(4, 2))


def test_nothing_to_convolve():
    assert short_convolution(torch.rand(0, 5, 3), torch.rand(3, 2)).shape == (0, 5, 3)


def test_counts_a_multiply_add_per_tap(form):
    x, w = torch.rand(2, 9, 3, requires_grad=True), torch.rand(3, 4, requires_grad=True)
    with flops.Counter() as counter:
        short_convolution(x, w).sum().backward()
    assert counter.by_name == ({"short_convolution": 6 * x.numel() * 4} if form == "compiled" else {})

"""Neither autocast, nor inputs in half precision, nor NaN in padding change what recurrences and transforms compute."""

import pytest
import torch

from zoo.ops.short_convolution import short_convolution
from zoo.ops.slstm import slstm
from zoo.ops.wkv4 import wkv

from .cases import CASES
from .test_nonfinite import _cast, _flat

FULL = (
    *("cauchy", "Fourier", "h3", "long convolution", "selective scan", "gated selective scan", "short convolution"),
    *("sLSTM", "Vandermonde kernel", "Vandermonde state", "WKV"),
)


@pytest.mark.parametrize("name", FULL)
def test_all_is_computed_in_float32(form, name):
    """Inputs hold numbers of bfloat16, so that only the dtype of the outputs may differ."""
    full, half = ([_cast(x, dtype) for x in CASES[name].inputs] for dtype in (torch.float32, torch.bfloat16))
    want = _flat(CASES[name].fast(*full))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for got in (_flat(CASES[name].fast(*given)) for given in (full, half)):
            for x, y in zip(got, want, strict=True):
                torch.testing.assert_close(x, y.to(x.dtype), rtol=0, atol=0)


MASK = torch.arange(9) < torch.tensor([9, 4, 0])[:, None]
OPS = {
    "wkv": lambda x, w: _flat(wkv(-w.exp(), w, x, x, None, MASK)),
    "slstm": lambda x, w: _flat(slstm(*(x.unsqueeze(0),) * 4, w.expand(1, 4, 5, 5), w.expand(1, 4, 5), None, MASK)),
    "short convolution": lambda x, w: [short_convolution(x, w.view(5, 1).expand(5, 3), mask=MASK)],
}


@pytest.mark.parametrize("op", OPS)
def test_nan_in_padding_leaves_no_trace(form, op):
    """In no valid output, no state and no gradient of theirs."""
    torch.manual_seed(0)
    x, w, found = torch.randn(3, 9, 5, requires_grad=True), torch.randn(5, requires_grad=True), []
    for junk in (0, float("nan")):
        y, *state = OPS[op](x.masked_fill(~MASK[..., None], junk), w)
        found.append([y[MASK], *state, *torch.autograd.grad(y[MASK].sum() + sum(s.sum() for s in state), (x, w))])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)

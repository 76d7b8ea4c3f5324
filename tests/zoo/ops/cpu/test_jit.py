"""Functions that vectorise equal torch's, at NaN and the infinities too, under the fast-math flags of every loop."""

import pytest
import torch

from zoo.ops import forms

if not forms.available():
    pytest.skip("needs numba", allow_module_level=True)

from numba import njit

from zoo.ops.cpu import jit
from zoo.ops.cpu.bfloat16 import array, narrowed, widened

LIMITS = {torch.float32: 1e-6, torch.float64: 1e-13}
EDGES = [float("nan"), -float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 88.72, 88.73, 1e4, -1e4, 3e38, -3e38]


def elementwise(function):
    """A compiled loop, kept nowhere, long enough to be vectorised."""

    @njit(fastmath=jit.FAST, error_model="numpy")
    def run(x, y):
        for i in range(len(y)):
            y[i] = function(x[i])

    def call(x):
        y = torch.empty_like(x)
        run(array(x), array(y))
        return y

    return call


@pytest.fixture(params=LIMITS, ids=str)
def x(request):
    edges = torch.tensor(EDGES, dtype=request.param)
    return torch.cat([edges, torch.linspace(-100, 100, 3001, dtype=request.param), edges.flip(0)])


FUNCTIONS = {
    "exp": (jit.exp, torch.exp),
    "exp2": (jit.exp2, torch.exp2),
    "sigmoid": (jit.sigmoid, torch.sigmoid),
    "rsqrt": (jit.rsqrt, torch.rsqrt),
    "softplus": (jit.softplus, lambda x: torch.logaddexp(x, torch.zeros_like(x))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_equal_torchs(name, x):
    ours, theirs = FUNCTIONS[name]
    x = x[x < 127] if name == "exp2" and x.dtype is torch.float32 else x
    torch.testing.assert_close(elementwise(ours)(x), theirs(x), rtol=20 * LIMITS[x.dtype], atol=2e-37, equal_nan=True)


def test_exp2_overflows_to_infinity():
    x = torch.tensor([126.0, 127.6, 128, 1e9, float("inf"), float("nan")] * 8)
    want = torch.tensor([2.0**126, *[float("inf")] * 4, float("nan")] * 8)
    torch.testing.assert_close(elementwise(jit.exp2)(x), want, equal_nan=True)


def test_log1p(x):
    x = torch.cat([torch.linspace(0, 1, 1000, dtype=x.dtype), x[:2]])
    torch.testing.assert_close(elementwise(jit.log1p)(x), x.log1p(), rtol=LIMITS[x.dtype], atol=0, equal_nan=True)


def test_the_largest_rank_is_of_the_largest_number_or_of_nan(x):
    @njit(fastmath=jit.FAST, error_model="numpy")
    def largest(x, y):
        top = jit.rank(x[0])
        for i in range(len(x)):
            top = max(top, jit.rank(x[i]))
        y[0] = jit.ranked(top)

    for part in (x, x[4:-4], x[3:-4], x[3:4], -x[1:2], x[1:2]):
        y = x.new_empty(1)
        largest(array(part.contiguous()), array(y))
        torch.testing.assert_close(y[0], part.amax(), rtol=0, atol=0, equal_nan=True)


def test_bfloat16_is_rounded_to_the_nearest_and_nan_stays_nan():
    bits = torch.tensor([0x7F800001, 0x7FFFFFFF, -1, 0x7F7FFFFF, 0x7F800000, 0x7FC00000], dtype=torch.int32)
    edges, size = torch.cat([bits.view(torch.float32), torch.tensor(EDGES)]), 2**12
    x = torch.cat([edges, torch.randn(size) * 10 ** torch.randint(-20, 20, (size,)), 1 + torch.arange(16.0) * 2**-8])

    @njit(fastmath=jit.FAST, error_model="numpy")
    def there_and_back(x, y, z):
        for i in range(len(x)):
            y[i] = narrowed(x[i], y)
            z[i] = widened(y[i])

    y, z = torch.empty_like(x, dtype=torch.bfloat16), torch.empty_like(x)
    there_and_back(array(x), array(y), array(z))
    torch.testing.assert_close(y, x.bfloat16(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(z, y.float(), rtol=0, atol=0, equal_nan=True)

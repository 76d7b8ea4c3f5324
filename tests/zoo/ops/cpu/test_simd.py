"""Vectors hold a register's worth of an array, whole or in part."""

import numpy as np
import pytest
import torch

from zoo.ops import forms

if not forms.available():
    pytest.skip("needs numba", allow_module_level=True)

from numba import njit

from zoo.ops.cpu.bfloat16 import array
from zoo.ops.cpu.jit import FAST, sigmoid
from zoo.ops.cpu.simd import (
    broadcast,
    lanes,
    load,
    load_partial,
    prefetch,
    store,
    store_partial,
    sum_lanes,
    vec_sigmoid,
)

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-13}
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def compile(function):
    """Not kept on disk: what a vector becomes depends on what the CPU is said to have."""
    return njit(fastmath=FAST, error_model="numpy")(function)


def copy_some(x, at, size, y, to, there):
    store_partial(load_partial(x, at, size), y, to, there)


@pytest.fixture(params=["by the CPU", "in plain"])
def rounding(request, monkeypatch):
    if request.param == "in plain":
        monkeypatch.setattr(forms, "matmul_backend", lambda dtype: None)
    elif forms.matmul_backend(torch.bfloat16) is None:
        pytest.skip("this CPU does not round to bfloat16")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_there_is_zero_and_not_written(dtype, rounding):
    copy, n = compile(copy_some), 8 if dtype is torch.float64 else 16
    x = torch.arange(1.0, 41).to(dtype)
    for size in (-3, 0, 1, 7, n - 1, n, n + 5):
        for there in (-1, 0, 1, n - 1, n, n + 5):
            y = torch.full((40,), -1.0, dtype=dtype)
            copy(array(x), 3, size, array(y), 2, there)
            read = torch.cat([x[3 : 3 + max(min(size, n), 0)], x.new_zeros(n)])[:n]
            want = torch.full((40,), -1.0, dtype=dtype)
            want[2 : 2 + max(min(there, n), 0)] = read[: max(min(there, n), 0)]
            torch.testing.assert_close(y, want, rtol=0, atol=0)


def test_bfloat16_is_rounded_to_the_nearest(rounding):
    @compile
    def narrow(x, y):
        for c in range(0, len(x), lanes(x)):
            store(load(x, c), y, c)

    torch.manual_seed(0)
    ties = torch.tensor(
        [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.0e38, float("inf"), -float("inf"), float("nan"), -float("nan")]
    )
    x = torch.cat([torch.randn(2**12 - 8) * 10 ** torch.randint(-20, 20, (2**12 - 8,)), ties])
    y = torch.empty_like(x, dtype=torch.bfloat16)
    narrow(array(x), array(y))
    torch.testing.assert_close(y, x.bfloat16(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_arithmetic(dtype):
    @compile
    def by_vectors(x, y, z, sums):
        for c in range(0, len(x), lanes(x)):
            a, b = load(x, c), load(y, c)
            prefetch(x, c + 1000, 64)  # beyond the array
            store((a * b + broadcast(x[0])) / (b - a), z, c)
            sums[c // lanes(x)] = sum_lanes(a)

    @compile
    def gates(x, z, plain):
        for c in range(0, len(x), lanes(x)):
            store(vec_sigmoid(load(x, c)), z, c)
        for c in range(len(x)):
            plain[c] = sigmoid(x[c])

    torch.manual_seed(0)
    x, y = (torch.randn(64, dtype=dtype) for _ in range(2))
    z, sums = torch.empty_like(x), x.new_zeros(64)
    by_vectors(array(x), array(y), array(z), array(sums))
    limit = {"rtol": 100 * TOLERANCE[dtype], "atol": 100 * TOLERANCE[dtype]}
    torch.testing.assert_close(z, (x * y + x[0]) / (y - x), **limit)
    n = 8 if dtype is torch.float64 else 16
    torch.testing.assert_close(sums[: 64 // n], x.unflatten(0, (-1, n)).sum(1), **limit)
    x = torch.cat(
        [
            torch.linspace(-90, 90, 1018, dtype=dtype),
            x.new_tensor([-1e4, -200, 200, float("nan"), float("inf"), -float("inf")]),
        ]
    )
    z, plain = torch.empty_like(x), torch.empty_like(x)
    gates(array(x), array(z), array(plain))
    torch.testing.assert_close(z, x.sigmoid(), rtol=10 * TOLERANCE[dtype], atol=1e-37, equal_nan=True)
    torch.testing.assert_close(z, plain, rtol=TOLERANCE[dtype], atol=1e-37, equal_nan=True)


@pytest.mark.parametrize(("of", "to"), [(np.float32, np.float64), (np.float64, np.float32), (np.float64, np.uint16)])
def test_a_vector_goes_only_where_its_numbers_belong(of, to):
    @compile
    def copy(x, y):
        store(load(x, 0), y, 0)

    with pytest.raises(Exception, match="store"):
        copy(np.zeros(16, of), np.zeros(16, to))

"""Loops over torch's threads: every item once, every kind of argument, on several threads at once."""

import ctypes
import threading
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from zoo.ops import forms

if not forms.available():
    pytest.skip("needs numba", allow_module_level=True)

from zoo.ops.cpu import threads
from zoo.ops.cpu.bfloat16 import Rows, offset, rows
from zoo.ops.cpu.jit import loop


@loop
def mark(start, stop, pieces, bits, plane, scale, negate, shift):
    """Each item's piece, and what the arguments say of it."""
    for i in range(start, stop):
        pieces[i] = start + 1
        bits[i] += np.uint16(1)
        for j in range(plane.shape[1]):
            plane[i, j] = (-plane[i, j] if negate else plane[i, j]) * scale + shift


class Affine(NamedTuple):
    scale: Any
    shift: int


class Pair(NamedTuple):
    affine: Affine
    x: Rows
    y: Rows


@loop
def move(start, stop, pair, width):
    """Heads of step `i` of element 0, in reverse order."""
    for i in range(start, stop):
        for h in range(2):
            of, to = offset(pair.x, 0, h, i), offset(pair.y, 0, 1 - h, i)
            for c in range(width):
                pair.y.memory[to + c] = pair.x.memory[of + c] * pair.affine.scale + pair.affine.shift


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("negate", [False, True])
@pytest.mark.parametrize(("items", "grain"), [(1, 1), (2, 1), (7, 1), (7, 4), (64, 16), (3, 5)])
def test_every_item_once_with_all_arguments(two_threads, items, grain, negate, dtype):
    pieces, bits = np.zeros(items, np.int64), np.zeros(items, np.uint16)
    plane = np.arange(items * 3, dtype=dtype).reshape(items, 3)
    want = (-plane if negate else plane) * dtype(0.5) + 3
    threads.run(mark, items, pieces, bits, plane, dtype(0.5), negate, 3, grain=grain)
    np.testing.assert_array_equal(plane, want)
    np.testing.assert_array_equal(bits, 1)
    starts = np.unique(pieces) - 1
    assert len(starts) == min(2, -(-items // grain))
    assert all(start % grain == 0 for start in starts)


def test_two_threads_at_once():
    """Each waits for the other, which one after the other they could not."""
    team = threads._openmp()
    both, seen = threading.Barrier(2, timeout=30), []

    def body(_):
        both.wait()
        seen.append((team.omp_get_thread_num(), torch.get_num_threads()))

    team.GOMP_parallel(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(body), None, 2, 0)
    assert sorted(number for number, _ in seen) == [0, 1]


def test_from_several_threads_of_python(two_threads):
    """Runs of different callers do not mix."""
    planes = [np.full((50, 3), i, np.float32) for i in range(4)]

    def work(plane):
        torch.set_num_threads(2)
        for _ in range(20):
            threads.run(mark, 50, np.zeros(50, np.int64), np.zeros(50, np.uint16), plane, np.float32(1), False, 1)

    callers = [threading.Thread(target=work, args=(plane,)) for plane in planes]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for i, plane in enumerate(planes):
        np.testing.assert_array_equal(plane, i + 20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arguments_within_named_tuples(two_threads, dtype):
    """Rows are read and written where they lie, as heads side by side or one after another."""
    x, y = torch.randn(1, 9, 2, 3, dtype=dtype).transpose(1, 2), torch.zeros(1, 2, 9, 3, dtype=dtype)
    half = np.float32(0.5) if dtype is torch.float32 else np.float64(0.5)
    threads.run(move, 9, Pair(affine=Affine(scale=half, shift=3), x=rows(x), y=rows(y)), 3)
    torch.testing.assert_close(y, x.flip(1) / 2 + 3)

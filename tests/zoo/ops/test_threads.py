"""Work over torch's threads: every item once, on several threads, with torch serial inside and errors brought back."""

import threading

import pytest
import torch

from zoo.ops import threads
from zoo.ops.threads import spread


@pytest.fixture(params=["torch's", "our own"])
def two_threads(request, monkeypatch):
    if request.param == "our own":
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    elif threads._openmp() is None:
        pytest.skip("torch has no OpenMP of GNU's interface here")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(("items", "grain"), [(1, 1), (2, 1), (7, 1), (7, 4), (64, 16), (3, 5)])
def test_every_item_once_in_multiples_of_the_grain(two_threads, items, grain):
    pieces = []
    spread(lambda start, stop: pieces.append((start, stop)), items, grain)
    assert sorted(i for start, stop in pieces for i in range(start, stop)) == list(range(items))
    assert all((stop - start) % grain == 0 or stop == items for start, stop in pieces)
    assert len(pieces) == min(2, -(-items // grain))


def test_on_several_threads_without_gradients(two_threads):
    seen, both = set(), threading.Barrier(2, timeout=30)
    weight = torch.ones(3, requires_grad=True)

    def work(start, stop):
        both.wait()  # fails unless two are at work
        seen.add(((weight * 2).requires_grad, threading.get_ident()))

    spread(work, 2)
    assert len(seen) == 2
    assert not any(tracked for tracked, _ in seen)


def test_torch_ops_inside_equal_those_outside(two_threads):
    x = torch.randn(6, 96, 96)
    y = torch.empty_like(x)

    def square(start, stop):
        for i in range(start, stop):
            y[i] = x[i] @ x[i]

    spread(square, 6)
    torch.testing.assert_close(y, x @ x)


def test_a_spread_within_a_spread(two_threads):
    done = []
    spread(lambda start, stop: spread(lambda a, b: done.extend(range(10 * start + a, 10 * start + b)), 10), 2)
    assert sorted(done) == list(range(20))


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("piece", [0, 1])
def test_errors_come_back(two_threads, error, piece):
    def work(start, stop):
        if start == piece:
            raise error

    with pytest.raises(type(error)):
        spread(work, 2)
    done = []
    spread(lambda start, stop: done.append(start), 2)
    assert sorted(done) == [0, 1]

"""LSTM and GRU, which torch computes, against the published recurrences in NumPy, and autograd through loops."""

import numpy as np
import pytest
import torch

from zoo.architectures.gru import GRU
from zoo.architectures.lstm import LSTM
from zoo.contract import LayerContext

from .compare import copies, drawn, leaves, vectors

B, T, D = 2, 8, 6


def sigmoid(x):
    return 1 / (1 + np.exp(-x)) if isinstance(x, np.ndarray) else torch.sigmoid(x)


def tanh(x):
    return np.tanh(x) if isinstance(x, np.ndarray) else torch.tanh(x)


def lstm(x, W, U, b, c):
    h = memory = 0 * x[:, 0]
    for t in range(T):
        i, f, g, o = [(x[:, t] @ W[k].T + b[k] + h @ U[k].T + c[k]) for k in range(4)]
        memory = sigmoid(f) * memory + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(memory)
        yield h


def gru(x, W, U, b, c):
    h = 0 * x[:, 0]
    for t in range(T):
        r, z, n = [x[:, t] @ W[k].T + b[k] for k in range(3)]
        ur, uz, un = [h @ U[k].T + c[k] for k in range(3)]
        update = sigmoid(z + uz)
        h = (1 - update) * tanh(n + sigmoid(r + ur) * un) + update * h
        yield h


@pytest.mark.parametrize(("kind", "rule", "gates"), [(LSTM, lstm, 4), (GRU, gru, 3)])
def test_recurrence(oracle, kind, rule, gates):
    torch.manual_seed(0)
    mixer, x = drawn(kind(LayerContext(width=D, length=T))), vectors(B, T, D)
    y, theirs = mixer(x)[0], copies(mixer)
    arrays = [p.detach().numpy().reshape(gates, D, *p.shape[1:]) for p in theirs.values()]
    proof = oracle(kind.__name__.lower(), "the published recurrence (NumPy, step by step)")
    proof.outputs(y, torch.from_numpy(np.stack(list(rule(x.detach().numpy(), *arrays)), 1)))
    want = torch.stack(list(rule(x, *(p.view(gates, D, *p.shape[1:]) for p in theirs.values()))), 1)
    proof.equal(y, want, leaves(mixer, x=x), {"x": x, **theirs})

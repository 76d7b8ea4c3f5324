"""What compiled loops do with matrices besides multiplying them (`zoo.ops.cpu.matmul`).

Matrices are flat arrays, rows `across` apart, in which a narrower one stands before zeros. Those in the dtype of
products may be bfloat16, see `zoo.ops.cpu.bfloat16`.
"""

from zoo.ops.cpu.bfloat16 import narrowed, offset, widened
from zoo.ops.cpu.jit import called, copy
from zoo.ops.cpu.simd import lanes, load, prefetch, store


@called
def row_of(x, i, size):  # type: ignore[no-untyped-def]
    """Of arrays of `size` one behind the other, the i-th."""
    return x[i * size : i * size + size]


@called
def load_rows(x, b, h, t, to, across, ahead):  # type: ignore[no-untyped-def]
    """Rows of head h of element b, from step t to the end of `to` or of `x`, as a left form; beside and behind them
    `to` is filled with zeros.

    What is wanted next stands `ahead` rows on: it comes near while this is worked on.
    """
    at, steps = offset(x, b, h, t), min(len(to) // across, x.T - t)
    for i in range(steps):
        first = at + i * x.step
        prefetch(x.memory, first + ahead * x.step, x.width)
        copy(x.memory[first : first + x.width], to[i * across : i * across + x.width])
        to[i * across + x.width : i * across + across] = 0
    to[steps * across :] = 0


@called
def store_rows(x, across, to, b, h, t):  # type: ignore[no-untyped-def]
    """The way back from `load_rows`."""
    at = offset(to, b, h, t)
    for i in range(min(len(x) // across, to.T - t)):
        first = at + i * to.step
        row, out = x[i * across : i * across + to.width], to.memory[first : first + to.width]
        for c in range(len(out)):
            out[c] = narrowed(widened(row[c]), out)


@called
def load_matrix(x, to, across):  # type: ignore[no-untyped-def]
    for i in range(len(x)):
        copy(x[i], to[i * across : i * across + x.shape[1]])


@called
def store_matrix(x, across, to):  # type: ignore[no-untyped-def]
    for i in range(len(to)):
        copy(x[i * across : i * across + to.shape[1]], to[i])


@called
def hadamard(x, y, to):  # type: ignore[no-untyped-def]
    """x ⊙ y in the dtype of products, of whole vectors."""
    for i in range(0, len(to), lanes(x)):
        store(load(x, i) * load(y, i), to, i)


@called
def scale(x, factor):  # type: ignore[no-untyped-def]
    for i in range(len(x)):
        x[i] *= factor


@called
def add(x, to):  # type: ignore[no-untyped-def]
    for i in range(len(to)):
        to[i] += x[i]


@called
def widen(x, to):  # type: ignore[no-untyped-def]
    for i in range(len(to)):
        to[i] = widened(x[i])


@called
def inner(x, y, total):  # type: ignore[no-untyped-def]
    """The sum of x ⊙ y, of x in the dtype of products, on top of `total`."""
    for i in range(len(y)):
        total += widened(x[i]) * y[i]
    return total


@called
def scale_rows(x, factors, C, across):  # type: ignore[no-untyped-def]
    for t in range(C):
        row, factor = x[t * across : t * across + across], factors[t]
        for c in range(across):
            row[c] *= factor


@called
def scale_into(x, factors, C, across, to):  # type: ignore[no-untyped-def]
    for t in range(C):
        row, out, factor = x[t * across : t * across + across], to[t * across : t * across + across], factors[t]
        for c in range(across):
            out[c] = narrowed(factor * widened(row[c]), out)


@called
def dots(x, y, C, across, to):  # type: ignore[no-untyped-def]
    """Products of rows of x (C, across) in the dtype of products and of y, on top of `to`."""
    for t in range(C):
        one, two, total = x[t * across : t * across + across], y[t * across : t * across + across], to[t]
        for c in range(across):
            total += widened(one[c]) * two[c]
        to[t] = total

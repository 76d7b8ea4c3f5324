"""Trees of ListOps, grown and evaluated in compiled loops. Import it only where examples are made: it loads numba."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

PAD, MIN, MAX, MED, SM, END, ZERO = range(7)
"""Tokens: padding, `[MIN`, `[MAX`, `[MED`, `[SM`, `]`, and the digits from `ZERO` on."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)
_62, _60, _32, _11 = np.uint64(62), np.uint64(60), np.uint64(32), np.uint64(11)
_THREE, _LOW = np.uint64(3), np.uint64(0xFFFFFFFF)


@njit(inline="always")
def _mix(z):  # type: ignore[no-untyped-def]
    z = (z ^ (z >> _30)) * _FIRST
    z = (z ^ (z >> _27)) * _SECOND
    return z ^ (z >> _31)


@njit(inline="always")
def _applied(op, values, n):  # type: ignore[no-untyped-def]
    """The operator's value on the first n numbers, which it may put in order."""
    if op == SM:
        return values[:n].sum() % 10
    ordered = values[:n]
    for i in range(1, n):  # sorted by insertion: they are few, and NumPy's sort takes seconds to compile
        for j in range(i, 0, -1):
            if ordered[j - 1] > ordered[j]:
                ordered[j - 1], ordered[j] = ordered[j], ordered[j - 1]
    if op == MIN:
        return ordered[0]
    return ordered[-1] if op == MAX else (ordered[(n - 1) // 2] + ordered[n // 2]) // 2


def grow(
    seeds: NDArray[np.uint64],
    lengths: tuple[int, int],
    max_depth: int,
    max_args: int,
    share: tuple[float, float],
    content: np.uint64,
    attempts: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """For each seed (N,) the first tree of its stream whose length and content are wanted.

    A stream is SplitMix64 from the seed, one number per node: two bits decide whether it is an operator and two which
    one, the low 32 its digit or its number of arguments. Trees are cut off where they grow too long.

    Args:
        lengths: bounds on the tokens of a tree, both exclusive. max_depth: nodes at this depth are digits; the root's
            is 1. share: the hundredths of all contents that are wanted, as `tasks.splits.home` counts them on the
            padded tokens. content: the key of its hash. attempts: trees after which a seed is given up.

    Returns:
        Tokens (N, `lengths[1]`), values (N,), and the length of each tree (N,), 0 where none was found.
    """
    tokens = np.zeros((len(seeds), lengths[1]), dtype=np.int64)
    answers, found = np.zeros((2, len(seeds)), dtype=np.int64)
    nodes, values = np.zeros((3, max_depth + 1), dtype=np.int64), np.zeros((max_depth + 1, max_args), dtype=np.int64)
    _grow(seeds, lengths, share, content, attempts, tokens, answers, found, nodes, values)
    return tokens, answers, found


@njit(nogil=True, cache=True)
def _grow(seeds, lengths, share, content, attempts, tokens, answers, found, nodes, values):  # type: ignore[no-untyped-def]
    """Write what `grow` returns; `nodes` (3, depth + 1) and `values` (depth + 1, arguments) are written on."""
    low, high = lengths
    ops, left, filled = nodes
    depths, max_args = values.shape
    for i in range(len(seeds)):
        state = seeds[i]
        for _ in range(attempts):
            size, depth, value = 0, 0, 0
            while size < high:
                state += _GOLDEN
                bits = _mix(state)
                if depth + 2 < depths and bits >> _62 == 0:
                    depth += 1
                    ops[depth] = 1 + np.int64(bits >> _60 & _THREE)
                    left[depth] = 2 + np.int64((bits & _LOW) * np.uint64(max_args - 1) >> _32)
                    filled[depth] = 0
                    tokens[i, size] = ops[depth]
                    size += 1
                    continue
                value = np.int64((bits & _LOW) * np.uint64(10) >> _32)
                tokens[i, size] = ZERO + value
                size += 1
                while depth and size < high:
                    values[depth, filled[depth]] = value
                    filled[depth] += 1
                    left[depth] -= 1
                    if left[depth]:
                        break
                    value = _applied(ops[depth], values[depth], filled[depth])
                    tokens[i, size] = END
                    size += 1
                    depth -= 1
                if depth == 0:
                    break
            if depth == 0 and low < size < high:
                tokens[i, size:] = PAD
                hashed = np.uint64(0)
                for token in tokens[i]:
                    hashed = _mix(_mix((hashed ^ np.uint64(token)) * _GOLDEN + content) + _GOLDEN)
                hundredth = np.float64(hashed >> _11) * 2.0**-53 * 100
                if share[0] <= hundredth < share[1]:
                    answers[i], found[i] = value, size
                    break


def truncated(tokens: NDArray[np.int64], depth: int, otherwise: int) -> NDArray[np.int64]:
    """The values (N,) of trees (N, T) without their operators below `depth`, where the root's depth is 1.

    What is left of an operator's arguments is evaluated exactly. An operator of which none is left is itself left out,
    or, if it is the root, taken to be `otherwise`.
    """
    answers = np.full(len(tokens), otherwise, dtype=np.int64)
    nodes, values = np.zeros((2, depth + 1), dtype=np.int64), np.zeros((depth + 1, tokens.shape[1]), dtype=np.int64)
    _truncate(tokens, depth, answers, nodes, values)
    return answers


@njit(nogil=True, cache=True)
def _truncate(tokens, depth, answers, nodes, values):  # type: ignore[no-untyped-def]
    """Write what `truncated` returns over `answers`."""
    ops, filled = nodes
    for i in range(len(tokens)):
        level = 0
        filled[0] = 0
        for token in tokens[i]:
            if token == PAD:
                break
            if token == END:
                if level <= depth and filled[level]:
                    value = _applied(ops[level], values[level], filled[level])
                    values[level - 1, filled[level - 1]] = value
                    filled[level - 1] += 1
                level -= 1
            elif token < END:
                level += 1
                if level <= depth:
                    ops[level], filled[level] = token, 0
            elif level <= depth:
                values[level, filled[level]] = token - ZERO
                filled[level] += 1
        if filled[0]:
            answers[i] = values[0, 0]

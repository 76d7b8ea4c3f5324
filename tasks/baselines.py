"""Heuristics that many tasks can be scored with: n-gram models and compressors for bytes, simple classifiers."""

import lzma
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.base import Baseline, Ids

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]


def ngram_bits(train: Bytes, text: Bytes, positions: Ids, order: int) -> Floats:
    """Bits that the n-gram models of orders 1 to `order`, trained on `train`, spend on the bytes `text[positions]`.

    Witten and Bell's interpolation (1991, method C; Chen and Goodman 1998, section 2.5), down to a uniform 1/256: with
    N(h) bytes seen after context h, of which U(h) different ones,
    p_k(c|h) = (N(hc) + U(h) p_{k-1}(c|h')) / (N(h) + U(h)), and p_k = p_{k-1} where h was never seen.
    Contexts are the bytes of `text` before each position; where fewer than k−1 are left, p_k = p_{k-1}.

    Args:
        train, text: bytes. positions: places in `text`, shape (N,). order: 1 to 7.

    Returns:
        Shape (order, N).
    """
    if not 1 <= order <= 7:
        raise ValueError(f"order must be 1 to 7, got {order}")
    p = np.full(len(positions), 1 / 256)
    bits = np.empty((order, len(positions)))
    for k in range(1, order + 1):
        here = positions >= k - 1
        wanted = np.zeros(int(here.sum()), dtype=np.int64)
        for offset in range(1 - k, 1):
            wanted = wanted << 8 | text[positions[here] + offset]
        p[here] = _interpolated(_grams(train, k), wanted, p[here])
        bits[k - 1] = -np.log2(p)
    return bits


def _grams(data: Bytes, k: int) -> Ids:
    """Every run of k bytes, packed into one integer, the last byte lowest; sorted."""
    if len(data) < k:
        return np.empty(0, dtype=np.int64)
    grams = np.zeros(len(data) - k + 1, dtype=np.int64)
    for offset in range(k):
        grams <<= 8
        grams |= data[offset : offset + len(grams)]
    grams.sort()
    return grams


def _interpolated(grams: Ids, wanted: Ids, shorter: Floats) -> Floats:
    """One step of the recursion: p_k of the packed `wanted` from the sorted `grams` of training and from p_{k-1}."""
    new = np.flatnonzero(np.diff(grams, prepend=-1))
    kinds, counts = grams[new], np.diff(new, append=len(grams))
    first = np.flatnonzero(np.diff(kinds >> 8, prepend=-1))
    contexts, different = kinds[first] >> 8, np.diff(first, append=len(kinds))
    seen = np.add.reduceat(counts, first) if len(first) else counts
    n = _looked_up(kinds, counts, wanted)
    N, U = _looked_up(contexts, seen, wanted >> 8), _looked_up(contexts, different, wanted >> 8)
    return np.where(N > 0, (n + U * shorter) / np.maximum(N + U, 1), shorter)


def _looked_up(keys: Ids, values: Ids, wanted: Ids) -> Ids:
    """The values under sorted keys; 0 where a key is absent."""
    if not len(keys):
        return np.zeros_like(wanted)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def xz_bits_per_byte(train: bytes, text: bytes) -> float:
    """Bits that xz -9e adds per byte of `text` behind `train`: 8 (|xz(train + text)| − |xz(train)|) / |text|."""

    def packed(data: bytes) -> int:
        return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))

    return 8 * (packed(train + text) - packed(train)) / len(text)


def accuracy(name: str, guesses: Any, answers: NDArray[Any], about: str) -> Baseline:
    """The share of the guesses, one for each answer or one for all, that are right."""
    return Baseline(name, float(np.mean(guesses == answers)), about)


def commonest(labels: Ids) -> int:
    """The most frequent label; of equals, the smallest."""
    return int(np.bincount(labels).argmax())


def nearest_neighbour(train: Floats, labels: Ids, test: Floats) -> Ids:
    """The label of the nearest training vector (Euclidean) for each test vector: (N, F), (N,), (M, F) -> (M,)."""
    from sklearn.neighbors import KNeighborsClassifier

    found: Ids = KNeighborsClassifier(n_neighbors=1, algorithm="brute").fit(train, labels).predict(test)
    return found


def logistic_regression(train: Any, labels: Ids, test: Any, *, l2: float = 0.01) -> Ids:
    """Labels given by a softmax regression, fitted with L-BFGS: (N, F), (N,), (M, F) -> (M,).

    Minimises the mean cross-entropy plus `l2`/2 times the squared norm of the weights (not of the biases). `train` and
    `test` are NumPy arrays or SciPy's sparse ones. Of one class in `labels`, every answer is that class.
    """
    from sklearn.linear_model import LogisticRegression

    classes = len(np.unique(labels))
    if classes == 1:
        return np.full(test.shape[0], labels[0])
    # Of two classes scikit-learn fits one vector w where softmax has w/2 and -w/2, whose squared norm is half of w's.
    strength = l2 / 2 if classes == 2 else l2
    model = LogisticRegression(C=1 / (strength * len(labels)), tol=1e-5, max_iter=1000)
    found: Ids = model.fit(train, labels).predict(test)
    return found


def classifiers(train: Floats, labels: Ids, test: Floats, answers: Ids, *, told: str, nearest: str) -> list[Baseline]:
    """Three that know nothing of order, of vectors (N, F) and (M, F), which are `told`; `nearest` is about the last."""
    fitted = logistic_regression(train, labels, test)
    return [
        accuracy("majority", commonest(labels), answers, "always the most frequent class of the train split"),
        accuracy("logistic", fitted, answers, f"softmax regression on {told}, L2 0.01"),
        accuracy("neighbour", nearest_neighbour(train, labels, test), answers, nearest),
    ]

"""The n-gram model against a slow one written from the formula; classifiers on data they must get right."""

import lzma
from collections import Counter

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from tasks.baselines import accuracy, commonest, logistic_regression, nearest_neighbour, ngram_bits, xz_bits_per_byte

TEXT = b"the cat sat on the mat, the rat ate the cat; a rat sat on a mat. " * 3 + b"that is that"


def as_bytes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, dtype=np.uint8)


def slow(train: bytes, context: bytes, byte: int, k: int) -> float:
    """Witten and Bell's p_k(byte | last k−1 bytes of context)."""
    if k == 0:
        return 1 / 256
    shorter = slow(train, context, byte, k - 1)
    if len(context) < k - 1:
        return shorter
    h = context[len(context) - k + 1 :]
    after = Counter(train[i + k - 1] for i in range(len(train) - k + 1) if train[i : i + k - 1] == h)
    if not after:
        return shorter
    return (after[byte] + len(after) * shorter) / (sum(after.values()) + len(after))


@pytest.mark.parametrize("train", [TEXT, b"ab", b"a", b""])
def test_ngrams_equal_the_formula(train):
    text = b"a rat that sat; xylophone the cat"
    positions = np.array([0, 1, 2, 3, 20, 7, len(text) - 1])
    found = ngram_bits(as_bytes(train), as_bytes(text), positions, order=5)
    expected = [[-np.log2(slow(train, text[:p], text[p], k)) for p in positions] for k in range(1, 6)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("context", [b"the c", b"e ca\xff", b"zzzzz"])
def test_ngram_probabilities_sum_to_one(context):
    text = as_bytes(b"".join(context + bytes([byte]) for byte in range(256)))
    bits = ngram_bits(as_bytes(TEXT), text, np.arange(256) * 6 + 5, order=6)
    np.testing.assert_allclose((2.0**-bits).sum(axis=1), 1.0, rtol=1e-12)


def test_ngram_order_is_checked():
    with pytest.raises(ValueError, match="order must be 1 to 7"):
        ngram_bits(as_bytes(TEXT), as_bytes(TEXT), np.arange(3), order=8)


def test_xz_counts_what_the_text_adds():
    size = [len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) for data in (TEXT, TEXT + b"the hat")]
    assert xz_bits_per_byte(TEXT, b"the hat") == 8 * (size[1] - size[0]) / 7


def test_majority():
    assert accuracy("majority", commonest(np.array([2, 2, 1])), np.array([2, 1, 0, 2]), "").value == 0.5


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_minimises_what_it_says(classes):
    """Against softmax's own objective, minimised numerically, where the penalty decides some of the answers."""
    rng = np.random.default_rng(classes)
    labels = np.minimum(rng.integers(4, size=200), classes - 1)
    x, z = (np.eye(classes)[labels] + rng.normal(size=(200, classes)) for _ in range(2))

    def objective(flat: np.ndarray, l2: float) -> float:
        w = flat.reshape(classes + 1, classes)
        log_p = log_softmax(x @ w[:-1] + w[-1], axis=1)
        return -log_p[np.arange(200), labels].mean() + l2 / 2 * (w[:-1] ** 2).sum()

    def answers(l2: float) -> np.ndarray:
        w = minimize(objective, np.zeros((classes + 1) * classes), (l2,), tol=1e-9).x.reshape(classes + 1, classes)
        return np.argmax(z @ w[:-1] + w[-1], axis=1)

    assert (logistic_regression(x, labels, z, l2=0.3) == answers(0.3)).all()
    assert (answers(0.3) != answers(0.6)).any()


def test_of_one_class_every_answer_is_it():
    assert logistic_regression(np.ones((4, 2)), np.full(4, 1), np.ones((3, 2))).tolist() == [1, 1, 1]


def test_nearest_neighbour():
    rng = np.random.default_rng(0)
    x, z, labels = rng.normal(size=(50, 3)), rng.normal(size=(20, 3)), rng.integers(5, size=50)
    nearest = [min(range(50), key=lambda i: float(np.linalg.norm(x[i] - row))) for row in z]
    np.testing.assert_array_equal(nearest_neighbour(x, labels, z), labels[nearest])

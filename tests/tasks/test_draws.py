"""Random numbers by coordinate: fixed for ever, row by row, and with the distributions they claim."""

from hashlib import blake2b

import numpy as np
import pytest

from tasks.draws import Draws

IDS = np.arange(64)


def digest(*arrays: np.ndarray) -> str:
    return blake2b(b"".join(a.tobytes() for a in arrays), digest_size=8).hexdigest()


def test_golden():
    draws = Draws("golden", 7)
    weights = 1.0 / np.arange(1, 11)
    assert digest(draws.bits(IDS, 5)) == "a79a50bc2a726f80"
    plain = draws.uniform(IDS, 5), draws.integers(IDS, 5, -3, 9), draws.permutation(IDS, 11)
    assert digest(*plain) == "aba638c9496d2606"
    assert digest(draws.sample(IDS, 10, 4), draws.sample(IDS, 10, 4, weights)) == "2fa0abc3281e6e16"


@pytest.mark.parametrize("method", ["bits", "uniform", "permutation"])
def test_a_row_depends_on_its_id_alone(method):
    whole = getattr(Draws("rows"), method)(IDS, 9)
    picked = np.array([40, 3, 3, 17])
    np.testing.assert_array_equal(getattr(Draws("rows"), method)(picked, 9), whole[picked])


def test_other_keys_give_other_numbers():
    assert not np.intersect1d(Draws("a", "b").bits(IDS, 100), Draws("a", "c").bits(IDS, 100)).size
    assert (Draws("a", "b").bits(IDS, 2) != Draws("ab").bits(IDS, 2)).all()


def test_permutation_and_sample_repeat_nothing():
    np.testing.assert_array_equal(np.sort(Draws("p").permutation(IDS, 13)), np.tile(np.arange(13), (64, 1)))
    for weights in (None, np.linspace(1, 5, 13)):
        chosen = np.sort(Draws("s").sample(IDS, 13, 6, weights))
        assert (np.diff(chosen) > 0).all()
        assert chosen.min() >= 0
        assert chosen.max() < 13


def test_sampling_everything_is_a_permutation():
    np.testing.assert_array_equal(Draws("p").sample(IDS, 13, 13), Draws("p").permutation(IDS, 13))


def test_weighted_sampling_draws_one_after_another():
    """P(first = i) is w_i / Σw, and P(second = j | first = i) is w_j / (Σw − w_i)."""
    w = np.array([5.0, 3.0, 1.0, 1.0])
    n = 40_000
    chosen = Draws("weights").sample(np.arange(n), 4, 2, w)
    for i in range(4):
        assert np.mean(chosen[:, 0] == i) == pytest.approx(w[i] / 10, abs=0.01)
        for j in range(4):
            if j != i:
                joint = np.mean((chosen == [i, j]).all(axis=1))
                assert joint == pytest.approx(w[i] / 10 * w[j] / (10 - w[i]), abs=0.01)

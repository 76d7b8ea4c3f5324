"""Examples go to splits by their content."""

import itertools

import numpy as np
import pytest

from tasks.draws import Draws
from tasks.splits import SHARES, drawn, home

SPLITS = list(SHARES)


def test_shares_are_kept_and_depend_on_the_content_alone():
    rows = np.array(list(itertools.product(range(4), repeat=8)))
    homes = home(rows)
    shares = np.bincount(homes, minlength=4) / len(rows)
    np.testing.assert_allclose(shares, np.array(list(SHARES.values())) / 100, atol=4 * np.sqrt(0.16 / len(rows)))
    order = np.random.default_rng(0).permutation(len(rows))
    assert (home(rows[order]) == homes[order]).all()
    assert (home(rows[:, ::-1]) != homes).any()


def test_no_content_is_drawn_in_two_splits():
    """Of 256 contents, each split draws 2,000 times."""

    def make(ids, attempt):
        return Draws("test", attempt).integers(ids, 8, 0, 2)

    found = [set(map(tuple, drawn(split, np.arange(2000), make, what="x").tolist())) for split in SPLITS]
    assert sum(map(len, found)) == len(set().union(*found)) == 256


def test_too_few_contents_are_refused():
    with pytest.raises(ValueError, match="x: too few different examples for split 'valid' to have its own"):
        drawn("valid", np.arange(3), lambda ids, attempt: np.zeros((len(ids), 2), dtype=np.int64), what="x")

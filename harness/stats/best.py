"""The expected best score of k of the trials that were made."""

import math
from collections.abc import Sequence


def expected_best(values: Sequence[float], *, higher_is_better: bool) -> list[float]:
    """The expected best of k of n trials, for k = 1 … n, all choices of k equally likely.

    Expected validation performance (Dodge et al. 2019, arXiv:1909.03004), drawn without replacement, which makes it
    unbiased where their plug-in estimate is not (Tang et al. 2020, arXiv:2004.13705). With values in ascending order
    v₁ ≤ … ≤ vₙ the i-th is the largest of k with probability C(i−1, k−1) / C(n, k).
    """
    sign = 1.0 if higher_is_better else -1.0
    ordered, n = sorted(sign * value for value in values), len(values)
    return [
        sign * math.fsum(math.comb(i, k - 1) / math.comb(n, k) * value for i, value in enumerate(ordered))
        for k in range(1, n + 1)
    ]

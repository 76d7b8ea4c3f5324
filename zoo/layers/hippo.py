"""HiPPO matrices and their normal-plus-low-rank form (Gu et al. 2022, S4, arXiv:2111.00396, appendix C.1; in float64).

    A = V (Λ − P P*) V*,    A + Σ_r P_r P_rᵀ = c I + skew = V Λ V*

Only one mode of each conjugate pair is kept, the one with Im Λ ≤ 0. Official: state-spaces/s4, models/s4/s4.py, `nplr`.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

LARGEST = 4096
"""The largest N: decomposing A takes O(N³) time, and N² memory."""
RANK = {"legs": 1, "legt": 2, "fout": 1}
"""The rank of the correction P that makes A normal."""


class NPLR(NamedTuple):
    """Λ (M,), P (R, M), B (M,) and the kept eigenvectors V (N, M), with M = N/2."""

    w: np.ndarray
    P: np.ndarray
    B: np.ndarray
    V: np.ndarray


@cache
def transition(measure: str, N: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A (N, N), B (N,) and the correction P (R, N) of a measure.

    `legs` (scaled Legendre), `legt` (translated Legendre), `fout` (truncated Fourier).
    """
    if N > LARGEST:
        raise ValueError(f"d_state {N} is too large for HiPPO, whose matrix is decomposed; at most {LARGEST}")
    n = np.arange(N, dtype=np.float64)
    if measure == "legs":
        B = np.sqrt(2 * n + 1)
        return -np.tril(np.outer(B, B), -1) - np.diag(n + 1), B, np.sqrt(n + 0.5)[None]
    if measure == "legt":
        r = np.sqrt(2 * n + 1)
        sign = np.where(n[:, None] < n, (-1.0) ** (n[:, None] - n), 1.0)
        even = n % 2 == 0
        return -0.5 * np.outer(r, r) * sign, 0.5 * r, 0.5**0.5 * np.stack([r * ~even, r * even])
    P = np.where(n % 2 == 0, 2.0**0.5, 0.0)
    P[0] = 1.0
    frequency = np.zeros(N - 1)
    frequency[0::2] = np.pi * np.arange(N // 2)  # one pair (cos, sin) for each frequency
    return np.diag(frequency, -1) - np.diag(frequency, 1) - np.outer(P, P), P, P[None]


@cache
def nplr(measure: str, N: int, rank: int = 1, clip: float | None = 2.0) -> NPLR:
    """The NPLR form for an even N, with zero rows in P up to `rank` and Im B clipped to ±`clip`.

    An eigenvector's phase is arbitrary and the clip depends on it. LAPACK leaves the first component real, which the
    official initialisation thus rests on; we make it positive too, so that every machine starts alike.
    """
    A, B, P = transition(measure, N)
    normal = A + P.T @ P
    im, V = np.linalg.eigh(-1j * normal)
    im, V = im[: N // 2], V[:, : N // 2]
    if abs(im[-1]) < 1e-4:  # a double eigenvalue 0, in the first two coordinates (fout): take (1, i)/√2
        V[:, -1] = 0
        V[:2, -1] = 0.5**0.5, 0.5**0.5 * 1j
    first = V[(np.abs(V) > 1e-6).argmax(0), np.arange(N // 2)]
    V = V * (np.abs(first) / first)
    w = np.diagonal(normal).mean() + 1j * im
    P = np.concatenate([P, np.zeros((rank - len(P), N))])
    B = V.conj().T @ B
    if clip is not None:
        B = B.real + 1j * B.imag.clip(-clip, clip)
    return NPLR(w, P @ V.conj(), B, V)


def combination(init: str, N: int, rank: int, S: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Λ (S, M), P (R, S, M) and B (S, M) of S systems: of one measure, or for `hippo` of legs and then fout."""
    measures = ("legs", "fout") if init == "hippo" else (init,)
    each, rest = divmod(S, len(measures))
    if rest:
        raise ValueError(f"s4: n_ssm {S} must be even for init hippo, half of the systems each")
    if rank < max(RANK[measure] for measure in measures):
        raise ValueError(f"s4: init {init} needs rank {max(RANK[m] for m in measures)}, not {rank}")
    forms = [nplr(measure, N, rank) for measure in measures]
    return (
        np.concatenate([np.tile(form.w, (each, 1)) for form in forms]),
        np.concatenate([np.tile(form.P[:, None], (1, each, 1)) for form in forms], axis=1),
        np.concatenate([np.tile(form.B, (each, 1)) for form in forms]),
    )

"""Bilinear diagonal-plus-low-rank state-space systems: the kernel and the steps of S4.

The system has N = 2M states in M conjugate pairs, of which the first halves are stored:

    x_t = Ā x_{t−1} + B̄ u_t,    Ā = (I − A/2)^{−1} (I + A/2),    B̄ = (I − A/2)^{−1} b,    A = diag(a) − Σ_r p_r p_r*

with the step size inside: a = ΔΛ, p = √Δ P, b = ΔB. `kernel` is the convolution kernel, by the Cauchy form; the other
functions step the system, in real coordinates (Re x_1, Im x_1, Re x_2, …).
"""

from zoo.ops.cauchy.dense import accumulate, power_apply, powers, row, rows, transition, unrow
from zoo.ops.cauchy.naive import kernel as kernel_naive
from zoo.ops.cauchy.woodbury import kernel

__all__ = [
    "accumulate",
    "kernel",
    "kernel_naive",
    "power_apply",
    "powers",
    "row",
    "rows",
    "transition",
    "unrow",
]

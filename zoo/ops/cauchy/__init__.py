"""The convolution kernel of S4's bilinear diagonal-plus-low-rank systems, by the Cauchy form.

The system has N = 2M states in M conjugate pairs, of which the first halves are stored:

    x_t = Ā x_{t−1} + B̄ u_t,    Ā = (I − A/2)^{−1} (I + A/2),    B̄ = (I − A/2)^{−1} b,    A = diag(a) − Σ_r p_r p_r*

with the step size inside: a = ΔΛ, p = √Δ P, b = ΔB.
"""

from zoo.ops.cauchy.naive import kernel as kernel_naive
from zoo.ops.cauchy.woodbury import kernel

__all__ = ["kernel", "kernel_naive"]

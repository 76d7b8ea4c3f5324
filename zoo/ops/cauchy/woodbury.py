"""The DPLR kernel from its spectrum (Gu et al. 2022, arXiv:2111.00396, appendix C.3, algorithm 1).

At ω = e^{−2πik/L} the discrete Fourier transform of K_0 … K_{L−1} is C (I − Ā^L)(I − ωĀ)^{−1} B̄, so no power of Ā is
needed where c = C (I − Ā^L) is given. With s = 1 − ω and z = (1 + ω)/2,

    (I − ωĀ)^{−1} B̄ = (s I − z A)^{−1} b,    c (s I − z A)^{−1} b = r_cb − z r_cp (I + z r_pp)^{−1} r_pb      (Woodbury)
    r_xy = Σ_n x_n y_n / (s − z a_n)   over the conjugate pairs,   where p on the left stands for p*

The paper divides by z, which is 0 at ω = −1; this form never does. A factor √ω is left out of s, z and 1/r until the
end: what remains is s = i S and z = κ, with S = 2 sin(πk/L) and κ = cos(πk/L), both real.
"""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from zoo.ops import flops, forms
from zoo.ops.cauchy import naive
from zoo.ops.precision import common_dtype, no_autocast
from zoo.ops.step_by_step import finite_or


@forms.computes(naive.kernel)
def kernel(a, p, b, c, L):  # type: ignore[no-untyped-def]
    """Counts its FFTs, and its sums: 4 real products of (K + R)(1 + R) × M × L/2 for each a.

    Raises:
        ValueError: L is below 1.
    """
    if L < 1:
        raise ValueError(f"cauchy.kernel: L is {L}, expected 1 at least")
    dtype = common_dtype(a, p, b, c)
    a, p, b, c = (x.to(dtype) for x in (a, p, b, c))
    R, K, H = len(p), len(c), len(a)
    angle = torch.arange(L // 2 + 1, device=a.device, dtype=a.real.dtype) * (math.pi / L)
    S, z = 2 * angle.sin(), angle.cos()
    left, right = torch.cat([c, p.conj()]), torch.cat([b[None], p])
    with no_autocast(a.device):
        r = sums((left[:, None] * right).flatten(0, 1), a, S, z).unflatten(1, (K + R, 1 + R))  # (H, K + R, 1 + R, F)
        cb, cp, pb, pp = r[:, :K, 0], r[:, :K, 1:], r[:, K:, 0], r[:, K:, 1:]
        if R == 1:  # torch divides complex numbers of a CPU one at a time
            found = cb - cp[:, :, 0] * (pb * (z * (1 + z * pp[:, :, 0]).reciprocal()))
        else:
            eye = torch.eye(R, dtype=a.dtype, device=a.device)
            solved = torch.linalg.solve(eye + (z * pp).movedim(3, 1), pb.movedim(2, 1)[..., None])  # (H, F, R, 1)
            found = cb - z * torch.einsum("hkrl,hlr->hkl", cp, solved[..., 0])
        flops.count("cauchy", H * K * flops.rfft(L))
        y = torch.fft.irfft(found * torch.polar(torch.ones_like(angle), angle), n=L).transpose(0, 1)
        return finite_or(y, lambda: naive.kernel(a, p, b, c, L))


def sums(
    v: Complex[Tensor, "J H M"], a: Complex[Tensor, "H M"], S: Float[Tensor, " F"], kappa: Float[Tensor, " F"]
) -> Complex[Tensor, "H J F"]:
    """Σ_n v_n / (i S − κ a_n) + v̄_n / (i S − κ ā_n).

    Each pair is (i u S − w κ) / q with u = 2 Re v, w = 2 Re(v ā) and q = (i S − κ a)(i S − κ ā) = β κ² − S² − 2 i α S κ
    for α = Re a and β = |a|².
    """
    v = v.transpose(0, 1)
    alpha, beta, u, w = a.real, a.real.square() + a.imag.square(), 2 * v.real, 2 * (v * a.conj()[:, None]).real
    return (forms.choose("cauchy", alpha, u) or _sums)(alpha, beta, u, w, S, kappa)


def _sums(alpha: Tensor, beta: Tensor, u: Tensor, w: Tensor, S: Tensor, kappa: Tensor) -> Complex[Tensor, "H J F"]:
    re = beta[..., None] * kappa.square() - S.square()
    im = alpha[..., None] * (-2 * S * kappa)
    squared = re.square() + im.square()
    x, y = re / squared, -im / squared  # (H, M, F)
    both = torch.cat([u, w], dim=1)
    (ux, wx), (uy, wy) = (both @ x).chunk(2, dim=1), (both @ y).chunk(2, dim=1)
    return torch.complex(-S * uy - kappa * wx, S * ux - kappa * wy)

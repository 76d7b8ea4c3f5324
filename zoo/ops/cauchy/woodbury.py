"""The DPLR kernel from its spectrum (Gu et al. 2022, arXiv:2111.00396, appendix C.3, algorithm 1).

At ω = e^{−2πik/L} the discrete Fourier transform of K_0 … K_{L−1} is C (I − Ā^L)(I − ωĀ)^{−1} B̄, so no power of Ā is
needed where c = C (I − Ā^L) is given. With s = 1 − ω and z = (1 + ω)/2,

    (I − ωĀ)^{−1} B̄ = (s I − z A)^{−1} b,    c (s I − z A)^{−1} b = r_cb − z r_cp (I + z r_pp)^{−1} r_pb      (Woodbury)
    r_xy = Σ_n x_n y_n / (s − z a_n)   over the conjugate pairs,   where p on the left stands for p*

The paper divides by z, which is 0 at ω = −1; this form never does.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from zoo.ops import flops, kernels


def kernel(
    a: Complex[Tensor, "H M"],
    p: Complex[Tensor, "R H M"],
    b: Complex[Tensor, "H M"],
    c: Complex[Tensor, "K H M"],
    L: int,
) -> Float[Tensor, "K H L"]:
    """See `naive.kernel`. Its FFTs are counted; its products torch's own counter sees."""
    kernels.ran("cauchy", "woodbury")
    R, K, H = len(p), len(c), len(a)
    omega = torch.polar(*_unit_circle(a, L))
    s, z = 1 - omega, (1 + omega) / 2
    left, right = torch.cat([c, p.conj()]), torch.cat([b[None], p])
    r = _cauchy(left[:, None] * right, a, s, z).unflatten(1, (K + R, 1 + R))  # (H, K + R, 1 + R, L/2 + 1)
    cb, cp, pb, pp = r[:, :K, 0], r[:, :K, 1:], r[:, K:, 0], r[:, K:, 1:]
    if R == 1:
        found = cb - z * cp[:, :, 0] * pb / (1 + z * pp[:, 0])
    else:
        eye = torch.eye(R, dtype=a.dtype, device=a.device)
        solved = torch.linalg.solve(eye + (z * pp).movedim(3, 1), pb.movedim(2, 1)[..., None])  # (H, L/2 + 1, R, 1)
        found = cb - z * torch.einsum("hkrl,hlr->hkl", cp, solved[..., 0])
    flops.count("cauchy", H * K * flops.rfft(L))
    return torch.fft.irfft(found, n=L).transpose(0, 1)


def _unit_circle(a: Tensor, L: int) -> tuple[Tensor, Tensor]:
    angle = torch.arange(L // 2 + 1, device=a.device, dtype=a.real.dtype) * (-2 * math.pi / L)
    return torch.ones_like(angle), angle


def _cauchy(v: Tensor, a: Tensor, s: Tensor, z: Tensor) -> Complex[Tensor, "H J F"]:
    """Σ_n v_n / (s − z a_n) + v̄_n / (s − z ā_n), for v (…, H, M) with … flattened to J.

    Each pair is (2 Re(v) s − 2 Re(v ā) z) / ((s − z a)(s − z ā)): the sums are real matrices times complex ones.
    """
    inverse = 1 / ((s - z * a[..., None]) * (s - z * a.conj()[..., None]))  # (H, M, F)
    v = v.flatten(0, -3).transpose(0, 1)  # (H, J, M)
    J, F = v.shape[1], inverse.shape[2]
    weights = 2 * torch.cat([v.real, (v * a.conj()[:, None]).real], dim=1)
    sums = weights @ torch.cat([inverse.real, inverse.imag], dim=2)
    sums = torch.complex(sums[..., :F], sums[..., F:])
    return s * sums[:, :J] - z * sums[:, J:]

"""State space duality as the recurrence reads (Dao & Gu 2024, arXiv:2405.21060, eqs. 1 and 16).

S_t = e^{g_t} S_{t−1} + B_t (Δ_t x_t)ᵀ,    y_t = S_tᵀ C_t + D ⊙ x_t
"""

from jaxtyping import Float
from torch import Tensor

from zoo.ops.linear_attention import recurrent


def ssd(
    x: Float[Tensor, "b H T P"],
    delta: Float[Tensor, "b H T"],
    g: Float[Tensor, "b H T"],
    B: Float[Tensor, "b G T N"],
    C: Float[Tensor, "b G T N"],
    D: Float[Tensor, "H P"],
    state: Float[Tensor, "b H N P"] | None = None,
) -> tuple[Float[Tensor, "b H T P"], Float[Tensor, "b H N P"]]:
    """y and the final state. Each head of B and C serves H/G neighbouring ones of x."""
    y, S = recurrent(C, B, delta[..., None] * x, g, state)
    return y + D[:, None] * x, S

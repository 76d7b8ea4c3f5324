"""Delta rules by the Triton kernels of flash-linear-attention (fla-org/flash-linear-attention, fla/ops): see
`zoo.ops.linear_attention.official`. Without a decay there is one for half precision only."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops import official, precision
from zoo.ops.delta_rule import naive
from zoo.ops.linear_attention.official import drawn_decay, fla_kernel


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """As `naive.delta_rule_naive`, or None where fla's kernel may not be used."""
    kernel = PLAIN if log_decay is None else GATED
    sizes = *q.shape[1::2], v.shape[-1]
    return official.compute(kernel, precision.matmul_dtype(q, k, v), sizes, q, k, v, beta, log_decay, state)


def dplr(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, log_decay: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """As `naive.dplr_naive`, or None where fla's kernel may not be used."""
    sizes = *q.shape[1::2], v.shape[-1]
    return official.compute(DPLR, precision.matmul_dtype(q, k, v, a, b), sizes, q, k, v, a, b, log_decay, state)


def _draw(random: torch.Generator, T: int, H: int, K: int, V: int) -> list[Tensor]:
    """q, unit keys, v, β between 0 and 1, a decay per head, a state."""
    shapes = (2, H, T, K), (2, H, T, K), (2, H, T, V), (2, H, T), (2, H, K, V)
    q, k, v, beta, state = (torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes)
    return [q, F.normalize(k, dim=-1), v, beta.sigmoid(), drawn_decay(random, 2, H, T), state]


def _draw_dplr(random: torch.Generator, T: int, H: int, K: int, V: int) -> list[Tensor]:
    """As RWKV-7 has them, a = −κ̂ and b = κ̂ ⊙ rate, but for decays, which may be any."""
    q, key, v, _, _, state = _draw(random, T, H, K, V)
    k, rate = (torch.randn(2, H, T, K, generator=random, dtype=torch.float64) for _ in range(2))
    return [q, k * K**-0.5, v, -key, key * rate.sigmoid(), drawn_decay(random, 2, H, T, K), state]


PLAIN, GATED = (
    fla_kernel("delta_rule", path, "q k v beta g initial_state", naive.delta_rule_naive, _draw, dtypes)
    for path, dtypes in (
        ("delta_rule.chunk_delta_rule", (torch.bfloat16,)),
        ("gated_delta_rule.chunk_gated_delta_rule", official.DTYPES),
    )
)
DPLR = fla_kernel(
    "dplr", "generalized_delta_rule.chunk_dplr_delta_rule", "q k v a b gk initial_state", naive.dplr_naive, _draw_dplr
)
KERNELS = (PLAIN, GATED, DPLR)

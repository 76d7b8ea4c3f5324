"""Delta rules by the Triton kernels of flash-linear-attention (fla-org/flash-linear-attention, fla/ops): see
`zoo.ops.linear_attention.official`. Without a decay there is one for half precision only."""

import torch
from torch import Tensor

from zoo.ops.delta_rule import naive
from zoo.ops.linear_attention.official import compute, fla_kernel


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """As `naive.delta_rule_naive`, or None where fla's kernel may not be used."""
    return compute(PLAIN if log_decay is None else GATED, q, k, v, beta, log_decay, state)


def dplr(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, log_decay: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """As `naive.dplr_naive`, or None where fla's kernel may not be used."""
    return compute(DPLR, q, k, v, a, b, log_decay, state, multiplied=5)


_DELTA, _DPLR = "q k v beta g initial_state", "q k v a b gk initial_state"
PLAIN = fla_kernel(
    "delta_rule", "delta_rule.chunk_delta_rule", _DELTA, naive.delta_rule_naive, (torch.bfloat16,), without="g"
)
GATED = fla_kernel("delta_rule", "gated_delta_rule.chunk_gated_delta_rule", _DELTA, naive.delta_rule_naive)
DPLR = fla_kernel("dplr", "generalized_delta_rule.chunk_dplr_delta_rule", _DPLR, naive.dplr_naive)
KERNELS = (PLAIN, GATED, DPLR)

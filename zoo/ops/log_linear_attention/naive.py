"""Log-linear attention as the recurrence reads, one token at a time (Guo et al. 2025, arXiv:2506.04761, section 3).

    o_t = Σ_{s ≤ t} λ_t[lev(t, s)] a_{s+1} ⋯ a_t (q_t·k_s) v_s

with lev(t, t) = 0, else the position, from 1, of the highest bit in which t and s differ, counted from 0: a query sees
the past in blocks of 1, 2, 4, … steps, larger the longer ago, and weighs each by a λ of its own. So the past is kept in
a Fenwick tree: of n steps there is one state S_b for each bit b of n, of a block of 2^b steps, read at level b + 1. A
step adds the present one to them as one adds 1 to n in binary: with c ones at the end of n,

    S_c ← k vᵀ + Σ_{b < c} S_b,    S_b ← 0  for b < c

The highest level has all that is older, too, so that there is no longest sequence. No scale is applied to q or k.

The delta rule has such a form as well (section 3.4): all states pass through the same a_t (I − β_t k_t k_tᵀ), and what
a step adds is β_t k_t v_tᵀ.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.ops.linear_attention.naive import repeat
from zoo.ops.precision import promote


def log_linear_attention(
    q: Float[Tensor, "B G T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B H T V"],
    log_decay: Float[Tensor, "B H T"],
    scales: Float[Tensor, "B H T L"],
    state: tuple[Float[Tensor, "B H L-1 K V"], Int[Tensor, " B"]] | None = None,
    valid: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], tuple[Float[Tensor, "B H L-1 K V"], Int[Tensor, " B"]] | None]:
    """Outputs in v's dtype and, given a state, the next: the S_b, float32 at least, and n of each row.

    `log_decay` is ln a_t ≤ 0, `scales` are λ_t. Each head of q and k serves H/G neighbouring ones of v. `valid` is true
    on the steps that count, which come first in each row; None for all. Outputs of the others are arbitrary.
    """
    dtype, outputs = promote(q, k, v, log_decay, scales, *(state or ())[:1]), []
    S, n = zero_state(q, v, scales, dtype) if state is None else (state[0].to(dtype), state[1])
    q, k = (repeat(x, v.shape[1]) for x in (q, k))
    for t in range(q.shape[2]):
        q_t, k_t, v_t, g_t, scale = (x[:, :, t].to(dtype) for x in (q, k, v, log_decay, scales))
        now = k_t[..., :, None] * v_t[..., None, :]
        past = g_t.exp()[..., None, None, None] * S
        outputs.append(read(q_t, now, past, scale).to(v.dtype))
        S, n = merged(now, past, (S, n), None if valid is None else valid[:, t])
    return torch.stack(outputs, dim=2), None if state is None else (S, n)


def log_linear_delta_rule(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    beta: Float[Tensor, "B H T"],
    log_decay: Float[Tensor, "B H T"],
    scales: Float[Tensor, "B H T L"],
    state: tuple[Float[Tensor, "B H L-1 K V"], Int[Tensor, " B"]] | None = None,
    valid: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], tuple[Float[Tensor, "B H L-1 K V"], Int[Tensor, " B"]] | None]:
    """The same of the gated delta rule: k are unit vectors, `beta` in [0, 2]."""
    dtype, outputs = promote(q, k, v, beta, log_decay, scales, *(state or ())[:1]), []
    S, n = zero_state(q, v, scales, dtype) if state is None else (state[0].to(dtype), state[1])
    for t in range(q.shape[2]):
        q_t, k_t, v_t, b_t, g_t, scale = (x[:, :, t].to(dtype) for x in (q, k, v, beta, log_decay, scales))
        written = b_t[..., None] * k_t
        now = written[..., :, None] * v_t[..., None, :]
        past = g_t.exp()[..., None, None, None] * S
        held = (k_t[:, :, None, :, None] * past).sum(-2, keepdim=True)  # kᵀ S of each level
        past = past - written[:, :, None, :, None] * held
        outputs.append(read(q_t, now, past, scale).to(v.dtype))
        S, n = merged(now, past, (S, n), None if valid is None else valid[:, t])
    return torch.stack(outputs, dim=2), None if state is None else (S, n)


def read(
    q: Float[Tensor, "B H K"],
    now: Float[Tensor, "B H K V"],
    past: Float[Tensor, "B H L-1 K V"],
    scale: Float[Tensor, "B H L"],
) -> Float[Tensor, "B H V"]:
    """The present step and the levels of the past, each by its λ, read by q."""
    levels = torch.cat([now[:, :, None], past], dim=2) * scale[..., None, None]
    return (q[..., :, None] * levels.sum(2)).sum(-2)


def merged(
    now: Float[Tensor, "B H K V"],
    past: Float[Tensor, "B H L-1 K V"],
    before: tuple[Float[Tensor, "B H L-1 K V"], Int[Tensor, " B"]],
    valid: Bool[Tensor, " B"] | None,
) -> tuple[Float[Tensor, "B H L-1 K V"], Int[Tensor, " B"]]:
    """The states behind a step that added `now` to what they had become, and how many steps they are of.

    Where a row's step does not count it keeps what was `before`.
    """
    S, n = before
    buckets = torch.arange(S.shape[2], device=S.device)
    carried = bit_length(n ^ (n + 1), len(buckets)) - 1  # the ones at the end of n
    below, at = (pick[:, None, :, None, None] for pick in (buckets < carried[:, None], buckets == carried[:, None]))
    added = now + torch.where(below, past, 0).sum(2)
    after = torch.where(at, past + added[:, :, None], torch.where(below, 0, past))
    if valid is None:
        return after, n + 1
    return torch.where(valid[:, None, None, None, None], after, S), n + valid.to(n.dtype)


def zero_state(q: Tensor, v: Tensor, scales: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """No steps yet, for inputs of these shapes."""
    S = q.new_zeros(*v.shape[:2], scales.shape[-1] - 1, q.shape[-1], v.shape[-1], dtype=dtype)
    return S, torch.zeros(len(q), dtype=torch.long, device=q.device)


def levels_of(steps: int) -> int:
    """How many levels tell blocks apart in sequences of so many steps."""
    return max(2, (steps - 1).bit_length() + 1)


def bit_length(x: Int[Tensor, "*N"], most: int) -> Int[Tensor, "*N"]:
    """The position, from 1, of the highest bit of x ≥ 0, `most` at the most; 0 for 0."""
    return (x[..., None] >> torch.arange(most, device=x.device) > 0).sum(-1)

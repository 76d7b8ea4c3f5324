"""The log-linear delta rule in chunks: as log-linear attention, with matrices where that has decays.

Within a chunk of C steps o = A V for some A that is lower triangular: with M, P, D and E of
`zoo.ops.delta_rule.chunked`,

    A = P β (I + M β)⁻¹,    S = (E K)ᵀ β (I + M β)⁻¹ V

and λ_t[lev(t, s)] multiplies A_ts. What a chunk does to a state from before it, and what its queries then read, is

    S ← F S,    o ← o + R S,    F = e^{c_C} I − (E K)ᵀ β (I + M β)⁻¹ D K,    R = D Q − A D K

Above the chunks, blocks of 1, 2, 4, … of them read the block before their own: its S, through the F of the chunks
between, which are multiplied into R from the right as blocks grow.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops import delta_rule, precision
from zoo.ops.delta_rule.chunked import inverse
from zoo.ops.forms import computes
from zoo.ops.kernel_log import log_kernel
from zoo.ops.linear_attention.chunked import segments, split
from zoo.ops.log_linear_attention import naive
from zoo.ops.log_linear_attention.chunked import CHUNK, empty
from zoo.ops.log_linear_attention.naive import bit_length
from zoo.ops.step_by_step import finite


@computes(naive.log_linear_delta_rule)
def log_linear_delta_rule(q, k, v, beta, log_decay, scales, state=None, valid=None):  # type: ignore[no-untyped-def]
    """For any T, in chunks from an empty state; from another, blocks begin anywhere, and steps follow one by one.

    Products run in bfloat16 where q, k and v have it, what is carried between chunks in float32 at least.
    """
    log_kernel("log_linear_delta_rule", "torch")
    T, L = q.shape[2], scales.shape[-1]
    if T == 1 or L == 1 or not empty(state):
        return naive.log_linear_delta_rule(q, k, v, beta, log_decay, scales, state, valid)
    with precision.no_autocast(q.device):
        wide = precision.promote(q, k, v, beta, log_decay, scales, *(state or ())[:1])
        dtype = torch.bfloat16 if q.dtype == k.dtype == v.dtype == torch.bfloat16 else wide
        b, g, levels = (x.to(wide) for x in (beta, log_decay, scales))
        if valid is not None:
            b, g = (x.masked_fill(~valid[:, None], 0) for x in (b, g))
        C = min(CHUNK, 1 << (T.bit_length() - 1))
        o = chunked(q.to(dtype), k.to(dtype), v.to(dtype), b, g, levels, C)
        new = None
        if state is not None:
            n = state[1] + (T if valid is None else valid.sum(1))
            new = last_state(k.to(wide), v.to(wide), b, g, n, L - 1), n
        if not finite(o, *(new or ())[:1]):
            return naive.log_linear_delta_rule(q, k, v, beta, log_decay, scales, state, valid)
    return o.to(v.dtype), new


def chunked(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, scales: Tensor, C: int
) -> Float[Tensor, "B H T V"]:
    """Outputs, in chunks of C steps, a power of two; products within a chunk in q's dtype."""
    T, highest, wide = q.shape[2], scales.shape[-1] - 1, g.dtype
    Q, K, V, b, g, scales = (split(x, C) for x in (q, k, v, beta[..., None], g[..., None], scales))
    spans = segments(g).squeeze(-1).exp()  # (B, H, N, C, C)
    M, P = spans * (K @ K.mT), spans * (Q @ K.mT)
    solve = b * inverse(M.tril(-1) * b.mT)  # β (I + M β)⁻¹
    A, written = (P.tril() @ solve).to(wide), (spans[..., -1, :, None] * K).mT @ solve
    t, N = torch.arange(C, device=q.device), V.shape[2]
    level = bit_length((t[:, None] ^ t).tril(), highest).expand(*scales.shape[:-1], C)
    o = (A * scales.gather(-1, level)).to(V.dtype) @ V
    S = written @ V.to(wide)  # of blocks: (B, H, P, K, V)
    from_start = g.cumsum(-2).exp()
    decayed = from_start * K
    R = from_start * Q - A @ decayed
    total = g.sum(-2, keepdim=True).exp() * torch.eye(K.shape[-1], dtype=wide, device=q.device) - written @ decayed
    for i in range((N - 1).bit_length()):
        later = torch.tensor([n for n in range(N) if n >> i & 1], device=q.device)  # chunks in the later of two blocks
        earlier = (later >> i) - 1  # the blocks before theirs
        read = R.index_select(2, later) @ S.index_select(2, earlier)
        weight = scales.index_select(2, later)[..., min(C.bit_length() + i, highest), None]
        o = o.index_add(2, later, (weight * read).to(o.dtype))
        if i + 1 < (N - 1).bit_length():
            R = R.index_copy(2, later, R.index_select(2, later) @ total.index_select(2, earlier))
            S, total = (F.pad(x, (0, 0, 0, 0, 0, x.shape[2] % 2)).unflatten(2, (-1, 2)) for x in (S, total))
            S, total = total[:, :, :, 1] @ S[:, :, :, 0] + S[:, :, :, 1], total[:, :, :, 1] @ total[:, :, :, 0]
    return o.flatten(2, 3)[:, :, :T]


def last_state(k: Tensor, v: Tensor, beta: Tensor, g: Tensor, n: Tensor, buckets: int) -> Float[Tensor, "B H L-1 K V"]:
    """S_b of each row's n steps, β and g being 0 behind them: of each the values of its own steps alone."""
    level = bit_length(n[:, None] ^ torch.arange(g.shape[-1], device=n.device), buckets)
    own = level[:, :, None] == torch.arange(1, buckets + 1, device=n.device)  # (B, T, L-1)
    values = (own[:, None, ..., None] * v[:, :, :, None]).flatten(3)
    _, S = delta_rule.delta_rule(k, k, values, beta, g)
    return S.unflatten(-1, (buckets, -1)).transpose(2, 3)

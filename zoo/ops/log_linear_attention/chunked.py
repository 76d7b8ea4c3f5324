"""Log-linear attention in chunks: one product of pairs within a chunk, one product of states for each level above.

Levels up to log₂ C lie within a chunk of C steps, where λ_t[lev(t, s)] multiplies the decay between t and s. Above them
blocks of 1, 2, 4, … chunks read the block before their own, of which one state S is left:

    o_t ← o_t + λ_t[l] e^{b_t} Sᵀ q_t

with b_t the log decays added up from the start of t's block: of each level half of the steps read a state.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops import precision
from zoo.ops.forms import computes
from zoo.ops.kernel_log import log_kernel
from zoo.ops.linear_attention.chunked import segments, split
from zoo.ops.linear_attention.naive import check_shared
from zoo.ops.log_linear_attention import naive
from zoo.ops.log_linear_attention.naive import bit_length
from zoo.ops.step_by_step import finite

CHUNK = 64
"""Steps per chunk, at most; a power of two."""


@computes(naive.log_linear_attention)
def log_linear_attention(q, k, v, log_decay, scales, state=None, valid=None):  # type: ignore[no-untyped-def]
    """For any T, in chunks from an empty state; from another, blocks begin anywhere, and steps follow one by one.

    Products run in bfloat16 where autocast says so or q, k and v have it.

    Raises:
        ValueError: H is no multiple of G.
    """
    check_shared("log_linear_attention", v, k)
    log_kernel("log_linear_attention", "torch")
    T, L = q.shape[2], scales.shape[-1]
    if T == 1 or L == 1 or not empty(state):  # of one level, the present step's, there is no past
        return naive.log_linear_attention(q, k, v, log_decay, scales, state, valid)
    dtype = precision.matmul_dtype(q, k, v)
    dtype = torch.float32 if dtype is torch.float16 else dtype  # whose largest number sums over keys soon pass
    with precision.no_autocast(q.device):
        wide = precision.promote(q, k, v, log_decay, scales, *(state or ())[:1])
        g, scales = log_decay.to(wide), scales.to(wide)
        if valid is not None:
            k, v = (x.masked_fill(~valid[:, None, :, None], 0) for x in (k, v))
            g = g.masked_fill(~valid[:, None], 0)
        C = min(CHUNK, 1 << (T.bit_length() - 1))
        o = chunked(q.to(dtype), k.to(dtype), v.to(dtype), g, scales, C)
        new = None
        if state is not None:
            n = state[1] + (T if valid is None else valid.sum(1))
            new = last_state(k.to(wide), v.to(wide), g, n, L - 1), n
        if not finite(o, *(new or ())[:1]):
            return naive.log_linear_attention(q, k, v, log_decay, scales, state, valid)
    return o.to(v.dtype), new


def empty(state: tuple[Tensor, Tensor] | None) -> bool:
    """Whether there is no past. On the meta device, where nobody can tell, there is none."""
    return state is None or not any(bool(x.any()) for x in state if not x.is_meta)


def chunked(q: Tensor, k: Tensor, v: Tensor, g: Tensor, scales: Tensor, C: int) -> Float[Tensor, "B H T V"]:
    """Outputs, in chunks of C steps, a power of two; products in q's dtype."""
    (G, T), highest = q.shape[1:3], scales.shape[-1] - 1
    Q, K = (split(x, C)[:, :, None] for x in (q, k))  # (B, G, 1, N, C, K)
    V, g, scales = (split(x, C).unflatten(1, (G, -1)) for x in (v, g[..., None], scales))  # (B, G, R, N, C, ·)
    t, N = torch.arange(C, device=q.device), V.shape[3]
    level = bit_length((t[:, None] ^ t).tril(), highest).expand(*scales.shape[:-1], C)
    within = segments(g).squeeze(-1).exp()
    o = ((Q @ K.mT) * (within * scales.gather(-1, level)).to(q.dtype)) @ V
    S = (K.mT @ (within[..., -1, :, None] * V).to(q.dtype)).to(g.dtype)  # of blocks: (B, G, R, P, K, V)
    total, from_start = g.sum(-2, keepdim=True), g.cumsum(-2)
    for i in range((N - 1).bit_length()):
        later = torch.tensor([n for n in range(N) if n >> i & 1], device=q.device)  # chunks in the later of two blocks
        earlier = (later >> i) - 1  # the blocks before theirs
        read = Q.index_select(3, later) @ S.to(q.dtype).index_select(3, earlier)
        weight = scales[..., min(C.bit_length() + i, highest), None] * from_start.exp()
        o = o.index_add(3, later, (weight.index_select(3, later) * read).to(o.dtype))
        from_start = from_start.index_add(3, later, total.index_select(3, earlier).expand(-1, -1, -1, -1, C, -1))
        S, total = (F.pad(x, (0, 0, 0, 0, 0, x.shape[3] % 2)).unflatten(3, (-1, 2)) for x in (S, total))
        S, total = total[:, :, :, :, 1].exp() * S[:, :, :, :, 0] + S[:, :, :, :, 1], total.sum(4)
    return o.flatten(3, 4)[..., :T, :].flatten(1, 2)


def last_state(k: Tensor, v: Tensor, g: Tensor, n: Tensor, buckets: int) -> Float[Tensor, "B H L-1 K V"]:
    """S_b of each row's n steps, k and v being 0 behind them."""
    to_end = F.pad(g[..., 1:].flip(-1).cumsum(-1).flip(-1), (0, 1)).exp()
    level = bit_length(n[:, None] ^ torch.arange(g.shape[-1], device=n.device), buckets)
    k, states = k.repeat_interleave(v.shape[1] // k.shape[1], dim=1), []
    for b in range(buckets):
        weight = to_end.masked_fill((level != b + 1)[:, None], 0)
        states.append(k.mT @ (weight[..., None] * v))
    return torch.stack(states, dim=2)

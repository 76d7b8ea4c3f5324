"""LSH attention in sorted chunks, a few at a time so that their scores stay in cache.

The softmax of a query runs over its keys of all R rounds at once, as rounds weighted by their denominators come to
(eq. 5). With m its largest score, z its denominator, and sums over every key that it sees in any round,

    E_j = e^{s_j − m},    y = Σ_j E_j v_j / z,    g = dy / z,    ds_j = E_j (g·v_j − g·y),    dv_j += E_j g

so that q, k, v, y, m and z are all that the backward pass needs; it computes the scores again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.ops import forms
from zoo.ops.lsh_attention import naive
from zoo.ops.lsh_attention.naive import HIDDEN, SELF
from zoo.ops.precision import at_least_fp32, no_autocast

SCORES = 2**17
"""Scores computed together on a CPU: with what is made of them they fit into its second-level cache."""


@forms.computes(naive.lsh_attention)
def lsh_attention(qk, v, buckets, *, scale=1.0, **sight):  # type: ignore[no-untyped-def]
    """Any T: padding to whole chunks stands behind all buckets.

    Scores and sums are in float32 at least; products with v, and those of the gradients, are in v's dtype.

    Raises:
        ValueError: `duplicates=False` with other than one chunk back, which the official count takes for granted.
    """
    if not len(qk):
        return v.clone()
    with no_autocast(qk.device):
        plan, q = make_plan(buckets, v.shape[2], **sight), at_least_fp32(qk)
        k = q * ((q.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * (q.shape[-1] ** -0.5 * scale))
        return LSHAttention.apply(q, k, v, plan)


@dataclass
class Plan:
    """Who sees whom: M chunks of C sorted queries, each with W keys. Rows are those of (B, T, H, ·) tensors."""

    queries: Int[Tensor, "M C"]  # their rows
    keys: Int[Tensor, "M W"]
    q_at: Int[Tensor, "M C"]  # the steps of queries; −1 is none
    k_at: Int[Tensor, "M W"]
    reach: Int[Tensor, "M C"]  # the last step that a query may see
    chunks: Int[Tensor, "M S"]  # those that a chunk sees: S C = W
    places: Int[Tensor, "N R"]  # of each row in each round, among the M C sorted queries
    labels: Int[Tensor, "M C"] | None  # queries see keys of their own label only
    meetings: list[tuple[Tensor, ...]]  # (M, C) by round: where on the ring a step is, the place behind, its bucket

    def parts(self) -> Iterator[slice]:
        """The chunks whose scores are computed together."""
        M, C = self.queries.shape
        size = max(1, SCORES // (C * self.keys.shape[1])) if self.queries.device.type == "cpu" else M
        return (slice(i, min(i + size, M)) for i in range(0, M, size))

    def bias(self, part: slice, dtype: torch.dtype) -> Float[Tensor, "M C W"] | None:
        """What labels, and how often a pair meets, add to its scores."""

        def equal(x: Tensor, y: Tensor) -> Tensor:
            return x[part, :, None] == y[self.chunks[part]].flatten(1)[:, None]

        bias = None
        if self.meetings:
            count = torch.zeros((), dtype=dtype, device=self.queries.device)
            for position, following, *bucket in self.meetings:
                together = equal(position, position).to(dtype) + equal(position, following)
                for own in bucket:
                    together = together * equal(own, own)
                count = count + together
            bias = -(count + 1e-9).log()
        if self.labels is not None:
            strange = (~equal(self.labels, self.labels)).to(dtype) * HIDDEN
            bias = strange if bias is None else bias + strange
        return bias


@torch.no_grad()
def make_plan(
    buckets: Int[Tensor, "B H R T"],
    T: int,
    *,
    chunk: int,
    before: int = 1,
    after: int = 0,
    causal: bool = False,
    valid: Bool[Tensor, "B T"] | None = None,
    across_buckets: bool = True,
    duplicates: bool = True,
) -> Plan:
    """Sort by bucket and time, what does not count last, and cut into chunks. See `naive.lsh_attention`."""
    if chunk < 1 or before < 0 or after < 0:
        raise ValueError(f"lsh_attention: chunk {chunk}, before {before}, after {after}; expected at least 1, 0 and 0")
    if not duplicates and (before, after) != (1, 0):
        raise ValueError("lsh_attention: duplicates are counted for one chunk back and none ahead only")
    (B, H, R, _), chunk = buckets.shape, min(chunk, T)
    C = -(-T // chunk)
    length, N, M = C * chunk, R * C, B * H * R * C

    def index(size: int, *shape: int) -> Tensor:
        """0, 1, …, in the shape of an axis."""
        return torch.arange(size, device=buckets.device).view(shape or -1)

    n = (torch.full((B,), T, device=buckets.device) if valid is None else valid.sum(1))[:, None, None, None]
    counts = index(length) < n
    bucket = F.pad(buckets.long() - buckets.amin(), (0, length - T))

    # One stable sort for all rows and rounds, of which each has numbers of its own.
    beyond = bucket.max() + 1
    numbers = (beyond + 1) * index(B * H * R, B, H, R, 1) + torch.where(counts, bucket, beyond)
    order = numbers.flatten().sort(stable=True).indices
    place = torch.empty_like(order)
    place[order] = index(len(order))
    place, at = place.view(B, H, R, length), (order % length).view(B, H, N, chunk)

    # The chunks of all rounds in a ring, on which a row has the first `full` of each round.
    full = ((n + chunk - 1) // chunk).clamp(min=1)
    own = index(N, N, 1)
    there = (own // C * full + (own % C).minimum(full - 1) + index(before + after + 1) - before) % (R * full)
    chunks = (there // full * C + there % full + N * index(B * H, B, H, 1, 1)).view(M, -1)

    # A slot without a step that counts is hidden, and holds a row of zeros behind all others.
    real = index(N * chunk, N, chunk) % length < n
    row = (index(B, B, 1, 1, 1) * T + at) * H + index(H, H, 1, 1)
    queries = torch.where(real, row, B * T * H).view(M, chunk)

    def by_query(x: Tensor) -> Sequence[Tensor]:
        """What the R rounds say of each sorted query."""
        x = x.transpose(2, 3).expand(B, H, length, R)
        return x.gather(2, at.flatten(2)[..., None].expand(-1, -1, -1, R)).view(M, chunk, R).unbind(-1)

    labels, meetings, single = None, [], n <= chunk
    if not across_buckets:
        own_bucket = (bucket * R + index(R, R, 1)).gather(-1, at.view(B, H, R, length))
        labels = own_bucket.masked_fill(single, 0).view(M, chunk)
    if not duplicates:
        on_ring = place % (R * length) // chunk
        on_ring = on_ring // C * full + on_ring % C
        rounds = [on_ring, (on_ring + 1) % (R * full)]
        rounds += [] if across_buckets else [bucket.masked_fill(single, 0)]
        meetings = list(zip(*map(by_query, rounds), strict=True))
    return Plan(
        queries=queries,
        keys=queries[chunks].flatten(1),
        q_at=torch.where(real, at, -1).view(M, chunk).int(),
        k_at=at.view(M, chunk)[chunks].flatten(1).int(),
        reach=torch.where(real, at if causal else (n - 1).expand_as(at), -1).view(M, chunk).int(),
        chunks=chunks,
        places=place[..., :T].permute(0, 3, 1, 2).reshape(-1, R),
        labels=labels,
        meetings=meetings,
    )


class LSHAttention(torch.autograd.Function):
    """y (B, H, T, V) from q and k (B, H, T, K), v and a `Plan`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Plan) -> Tensor:
        B, H, T, _ = q.shape
        to_exponentials = forms.choose("lsh_attention", q) or exponentials
        q, k, v = (_with_zeros(_rows(x)) for x in (q, k, v))
        M, C = plan.queries.shape
        y = torch.empty(M, C, v.shape[-1], dtype=q.dtype, device=q.device)
        top, total = torch.empty(2, M, C, dtype=q.dtype, device=q.device)
        for part in plan.parts():
            E = _gather(q, plan.queries[part]) @ _gather(k, plan.keys[part]).mT
            to_exponentials(E, plan, part, top[part], total[part])
            y[part] = E.to(v.dtype) @ _gather(v, plan.keys[part])
        # The rounds of each row, each with exponentials relative to its own largest score.
        tops = top.flatten()[plan.places]
        top = tops.amax(1)
        weight = (tops - top[:, None]).exp()
        total = (weight * total.flatten()[plan.places]).sum(1)
        y = _gather_sum(y.flatten(0, 1), plan.places, weight / total[:, None])
        ctx.save_for_backward(q, k, v, y, top, total)
        ctx.plan, ctx.shape = plan, (B, T, H)
        return y.to(v.dtype).unflatten(0, (B, T, H)).transpose(1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y, top, total = ctx.saved_tensors
        plan: Plan = ctx.plan
        to_slopes = forms.choose("lsh_attention", q, variant="backward") or slopes
        M, C = plan.queries.shape
        with no_autocast(dy.device):
            g = _rows(dy).to(q.dtype) / total[:, None]
            D, g, top = map(_with_zeros, ((g * y).sum(1), g.to(v.dtype), top))
            dq = torch.empty(M, C, q.shape[1], dtype=q.dtype, device=q.device)
            dk, dv = torch.zeros_like(dq), torch.zeros(M, C, v.shape[1], dtype=q.dtype, device=q.device)
            for part in plan.parts():
                queries, keys, chunks = plan.queries[part], plan.keys[part], plan.chunks[part].flatten()
                q_, k_, g_ = _gather(q, queries), _gather(k, keys), _gather(g, queries)
                E, ds = q_ @ k_.mT, (g_ @ _gather(v, keys).mT).to(q.dtype)
                to_slopes(E, ds, plan, part, _gather(top, queries), _gather(D, queries))
                E, ds, q_, k_ = (x.to(v.dtype) for x in (E, ds, q_, k_))
                dq[part] = ds @ k_
                for sums, terms in ((dk, ds.mT @ q_), (dv, E.mT @ g_)):
                    sums.view(M, -1).index_add_(0, chunks, terms.to(sums.dtype).view(len(chunks), -1))
            dq, dk, dv = (_gather_sum(x.flatten(0, 1), plan.places) for x in (dq, dk, dv))
        dq, dk, dv = (x.unflatten(0, ctx.shape).transpose(1, 2) for x in (dq, dk, dv))
        return dq, dk, dv.to(v.dtype), None


def exponentials(s: Tensor, plan: Plan, part: slice, top: Tensor, total: Tensor) -> None:
    """Scores to e^{s − top} in place, with the largest score of each query as `top` and their sum as `total`."""
    _mask(s, plan, part)
    torch.amax(s, -1, out=top)
    s.sub_(top[..., None]).exp_()
    torch.sum(s, -1, out=total)


def slopes(s: Tensor, ds: Tensor, plan: Plan, part: slice, top: Tensor, D: Tensor) -> None:
    """In place, scores s to E = e^{s − top}, and ds, given as g·v, to E (g·v − D): 0 where the score is a constant."""
    fixed = _mask(s, plan, part)
    s.sub_(top[..., None]).exp_()
    ds.sub_(D[..., None]).mul_(s).masked_fill_(fixed, 0)


def _mask(s: Tensor, plan: Plan, part: slice) -> Bool[Tensor, "M C W"]:
    """Put HIDDEN and SELF where they belong, and add the bias. Returns where scores are constants."""
    k_at = plan.k_at[part, None]
    hidden, own = k_at > plan.reach[part, :, None], k_at == plan.q_at[part, :, None]
    s.masked_fill_(hidden, HIDDEN).masked_fill_(own, SELF)
    bias = plan.bias(part, s.dtype)
    if bias is not None:
        s.add_(bias)
    return hidden | own


def _rows(x: Float[Tensor, "B H T d"]) -> Float[Tensor, "N d"]:
    """The vectors of all steps and heads, one a row: a view where heads were cut out of features."""
    return x.transpose(1, 2).reshape(-1, x.shape[3])


def _with_zeros(x: Float[Tensor, "N *d"]) -> Float[Tensor, "N+1 *d"]:
    return torch.cat([x, x.new_zeros(1, *x.shape[1:])])


def _gather(x: Float[Tensor, "N ..."], rows: Int[Tensor, "M W"]) -> Float[Tensor, "M W ..."]:
    return x.index_select(0, rows.flatten()).view(*rows.shape, *x.shape[1:])


def _gather_sum(
    x: Float[Tensor, "M d"], places: Int[Tensor, "N R"], weight: Float[Tensor, "N R"] | None = None
) -> Float[Tensor, "N d"]:
    """Σ_r weight_r x[places_r]."""
    return F.embedding_bag(places, x, mode="sum", per_sample_weights=weight)

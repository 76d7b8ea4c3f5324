"""Reformer's LSH attention (Kitaev et al. 2020, arXiv:2001.04451, section 2).

    q_t = x_t W_QK,    v_t = x_t W_V,    y_t = (Σ_r w_{t,r} softmax(q_t k̂ᵀ) v) W_O    over the keys near t in round r

Queries and keys are one: q_t is the query, k̂_t = q_t / |q_t| the key. Each of R rounds hashes every q_t to a bucket,
argmax [q P, −q P] with random P, sorts the steps by bucket and time, and cuts them into chunks; a step attends to its
chunk and to the one before. w_{t,r} ∝ the softmax's denominator (eq. 5). A step scores −5·10⁴ for itself. The
operator is `zoo.ops.lsh_attention`.

The causal form hides later steps, yet is not strictly causal: where they hash moves the borders of the chunks, and so
decides which earlier steps are seen.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, State, Traits, Unsupported
from zoo.layers.linear import Linear, branch_
from zoo.layers.multi_head import MultiHead
from zoo.layers.ranges import at_least_one
from zoo.layers.tensors import in_fp32, merge_heads, split_heads, zero_padding
from zoo.ops.lsh_attention import lsh_attention


@register(
    family="efficient attention",
    paper="Kitaev et al. 2020, Reformer: The Efficient Transformer, arXiv:2001.04451",
    source="https://github.com/google/trax (trax/layers/research/efficient_attention.py, trax/models/reformer)",
    deviations=(
        "rotations stay as drawn unless redraw() is called, one set for each head; the official code draws them for "
        "each example, head and call",
        "the default number of buckets follows the length the model was built for; officially, the input's length",
        "padding (any length, rows of a batch) stands behind all buckets and outside the ring of chunks, so that it "
        "changes no output; in the official code a round's first chunk may look back at a chunk of padding",
        "a step's score for itself is -5e4, as in the paper's first code and reformer-pytorch; trax subtracts 1e5",
        "steps in sight may be of other buckets, as in trax, transformers and reformer-pytorch; the paper's eq. 4 "
        "hides other buckets, which across_buckets=False does",
        "chunks of 64 steps, as in transformers (trax: 128); 4 rounds of hashing, as in the paper's enwik8 runs",
        "the reversible streams are kept for the backward pass, not recomputed, and the feed-forward is not chunked",
        "positions are learned, not axial; GELU and initialisation are pre_ln's",
        "resumption and incremental decoding, which trax approximates, are not offered",
    ),
    residual="reversible",
    positions="learned",
)
class Reformer(MultiHead):
    """Reversible transformer that attends within locality-sensitive hash buckets; its causal mask leaks a little.

    Args:
        head_dim: width of a head; None for width / heads.
        chunk: steps in a chunk. buckets: even, or a list of even factors; None for twice the chunks in
            `context.length`, in two factors from 130 on, as the official code has it.
        hashes: rounds. before, after: chunks a step sees besides its own.
        rotations_per_head: each head hashes in its own way.
        across_buckets: False hides the other buckets' steps in a chunk.
        duplicates: False counts a pair that meets in several rounds once; needs one chunk before, none after.
        scaled: divide scores by √head_dim, as reformer-pytorch does.
        bias: of the output projection.
    """

    traits = Traits(causal="leaky", bidirectional=True, resumable=False, stochastic=True)
    feeds_matmul_only = True
    relative = ("rotation",)
    rotations: Tensor

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        chunk: int = 64,
        buckets: int | list[int] | None = None,
        hashes: int = 4,
        before: int = 1,
        after: int = 0,
        rotations_per_head: bool = True,
        across_buckets: bool = True,
        duplicates: bool = True,
        scaled: bool = False,
        bias: bool = False,
    ) -> None:
        if context.positions is not None and context.positions.kind == "xpos":
            raise Unsupported("reformer: queries and keys are one, and cannot have xpos's two magnitudes")
        super().__init__(context, "reformer", heads, head_dim)
        at_least_one("reformer", chunk=chunk, hashes=hashes)
        if before < 0 or after < 0:
            raise ValueError(f"reformer: before and after must not be negative, got {before} and {after}")
        if not duplicates and (before, after) != (1, 0):
            raise ValueError("reformer: duplicates=False needs before=1 and after=0")
        self.chunk, self.before, self.after = chunk, before, after
        self.across_buckets, self.duplicates = across_buckets, duplicates
        self.scale = self.head_width**-0.5 if scaled else 1.0
        self.factors = factors(buckets, context.length, chunk)
        self.rotations_per_head = rotations_per_head
        inner = heads * self.head_width
        self.query_key = nn.Linear(context.width, inner, bias=False)
        self.value = nn.Linear(context.width, inner, bias=False)
        self.out = Linear(inner, context.width, bias=bias)
        self.register_buffer("rotations", torch.empty(heads, self.head_width, hashes, sum(self.factors) // 2))
        self.redraw()

    @torch.no_grad()
    def redraw(self, generator: torch.Generator | None = None) -> None:
        """Draw new rotations, N(0, 1), from torch's global generator if none is given. Nothing else ever does so."""
        drawn = self.rotations if self.rotations_per_head else self.rotations[:1].clone()
        self.rotations.copy_(drawn.normal_(generator=generator).expand_as(self.rotations))

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        qk, v = (split_heads(project(x), self.heads) for project in (self.query_key, self.value))
        qk = self.positions.rotate(qk, torch.arange(x.shape[1], device=x.device)[None], key=False)
        return self.out(merge_heads(self.attend(qk, v, mask))), None

    def attend(
        self, qk: Float[Tensor, "B H T d"], v: Float[Tensor, "B H T d"], valid: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B H T d"]:
        """LSH attention; where one chunk holds all steps, hashing would change nothing, and full attention is it."""
        B, H, T, _ = qk.shape
        attend = partial(lsh_attention, qk, v, causal=self.causal, valid=valid, scale=self.scale)
        if self.chunk >= T:
            return attend(torch.zeros(B, H, 1, T, dtype=torch.long, device=qk.device), chunk=T, before=0)
        buckets = in_fp32(hash_buckets)(qk, self.rotations, self.factors)
        attend = partial(attend, buckets, chunk=self.chunk, before=self.before, after=self.after)
        return attend(across_buckets=self.across_buckets, duplicates=self.duplicates)

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        branch_(self.query_key, values=self.value, out=self.out, depth=depth, gain=self.gain)


@torch.no_grad()
def hash_buckets(
    x: Float[Tensor, "B H T K"], rotations: Float[Tensor, "H K R F"], factors: Sequence[int]
) -> Int[Tensor, "B H R T"]:
    """h(x) = argmax [x P, −x P] for each of R rounds, a bucket below the product of `factors` (Andoni et al. 2015,
    arXiv:1509.02897).

    `factors` are even numbers and F half their sum: with more than one, each takes its own columns of the rotations P,
    and the hashes combine as digits, the first counting least.
    """
    rotated = torch.einsum("bhtk,hkrf->bhrtf", x, rotations.to(x.dtype))
    bucket, place = torch.zeros(rotated.shape[:-1], dtype=torch.long, device=x.device), 1
    for factor, part in zip(factors, rotated.split([n // 2 for n in factors], dim=-1), strict=True):
        bucket = bucket + place * torch.cat([part, -part], dim=-1).argmax(-1)
        place *= factor
    return bucket


def factors(buckets: int | Sequence[int] | None, length: int, chunk: int) -> list[int]:
    """The even numbers whose product is the number of buckets."""
    if buckets is None:
        n = 2 * max(1, length // chunk)
        if n <= 128:
            return [n]
        first = 2 ** math.ceil(math.log2(math.sqrt(n)))
        return [first, 2 * (n // (2 * first))]
    found = [buckets] if isinstance(buckets, int) else list(buckets)
    if not found or any(n < 2 or n % 2 for n in found):
        raise ValueError(f"reformer: buckets must be even, or a list of even factors; got {buckets}")
    return found

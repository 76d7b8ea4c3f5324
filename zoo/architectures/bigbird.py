"""BigBird attention: window, global and random blocks (Zaheer et al. 2020, arXiv:2007.14062, sections 2 and D).

    y_t = Σ_{s ∈ K(i)} softmax_s(q_t·k_s / √d) v_s    for t in block i
    K(0) = K(N − 1) = everything,    K(i) = blocks 0, i − 1, i, i + 1, N − 1 and r random ones

with the sequence cut into N blocks of b steps (the internal construction, BigBird-ITC). The random blocks are drawn
once for each layer and head, from a seed, by the official plan: among the first 2r + 5 blocks, neither in the window
nor global. With no more than 2r + 5 blocks, attention is full.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, State, Traits, Unsupported
from zoo.layers.linear import Linear, branch_
from zoo.layers.multi_head import MultiHead
from zoo.layers.ranges import at_least_one
from zoo.layers.tensors import merge_heads, split_heads, zero_padding
from zoo.ops.attention import attend
from zoo.ops.kernel_log import log_kernel


@register(
    family="efficient attention",
    paper="Zaheer et al. 2020, Big Bird: Transformers for Longer Sequences, arXiv:2007.14062",
    source="https://github.com/google-research/bigbird (core/attention.py); transformers, models/big_bird",
    deviations=(
        "internal construction (ITC) only: the first and last block are global, no tokens are added",
        "sequences are padded to the length the model was built for, not to a multiple of the block, so that outputs "
        "do not depend on padding; of a shorter one, the last global block is padding",
        "full attention where that length is at most 2r + 5 blocks; the official code decides by the input",
        "random blocks follow the official code, which takes them from the first 2r + 5 blocks only, not the paper, "
        "where they may lie anywhere; the special plans for 1024, 3072 and 4096 tokens are left out",
        "the plan is the same in training and evaluation, as in google-research/bigbird; transformers, when "
        "evaluating, takes the first block for all random ones",
        "blocks of 8 by default, where the official 64 would be full attention up to 704 tokens",
        "residual type, GELU and initialisation are pre_ln's",
    ),
    positions="learned",
)
class BigBird(MultiHead):
    """Transformer whose blocks of tokens see their neighbours, the first and last block and random ones; not causal.

    The plan is made for `context.length` steps; shorter sequences are padded to that inside, so that the outputs of a
    sequence do not depend on its padding. `plan` (heads, N − 2, r) is a buffer: a state dict carries it along.

    Args:
        block_size: b. random_blocks: r, at least 1.
    """

    traits = Traits(causal="no", bidirectional=True, resumable=False, length="max", stochastic=True)
    feeds_matmul_only = True
    relative = ("rotation",)
    plan: Tensor | None

    def __init__(
        self, context: LayerContext, *, heads: int = 4, block_size: int = 8, random_blocks: int = 3, bias: bool = True
    ) -> None:
        super().__init__(context, "bigbird", heads)
        at_least_one("bigbird", block_size=block_size, random_blocks=random_blocks)
        self.block_size, self.length = block_size, context.length
        self.query, self.key, self.value = (Linear(context.width, context.width, bias=bias) for _ in range(3))
        self.out = Linear(context.width, context.width)
        N = -(-context.length // block_size)
        sparse = 2 * random_blocks + 5 < N
        drawn = torch.tensor(draw(N, heads, random_blocks, seed=context.layer)) if sparse else None
        self.register_buffer("plan", drawn)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        if state is not None:
            raise Unsupported("BigBird attention cannot continue from a state")
        T = x.shape[1]
        if self.length < T:
            raise ValueError(f"bigbird: {T} steps; built for {self.length} at most")
        x = zero_padding(x, mask)
        q, k, v = (split_heads(project(x), self.heads) for project in (self.query, self.key, self.value))
        steps = torch.arange(T, device=x.device)
        q, k = self.positions.rotate_both(q, k, steps[None])
        # The first step stands in for the valid ones that a row of padding lacks; in any other row it is valid.
        valid = None if mask is None else mask | (steps == 0)
        if self.plan is None:
            y = attend(q, k, v, visible=None if valid is None else valid[:, None, None])
        else:
            y = self._sparse(q, k, v, valid, self.plan)
        return self.out(merge_heads(y)), None

    def _sparse(
        self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None, plan: Int[Tensor, "H M r"]
    ) -> Float[Tensor, "B H T d"]:
        """Queries of the first and the last block over everything, those of each block between over its own keys."""
        (B, H, T, d), b, N = q.shape, self.block_size, plan.shape[1] + 2
        log_kernel("bigbird_attention", "blocks")
        here = torch.arange(N * b, device=q.device) < T
        valid = here.expand(B, -1) if valid is None else F.pad(valid, (0, N * b - T))
        q, k, v = (F.pad(x, (0, 0, 0, N * b - T)) for x in (q, k, v))
        ends = torch.cat([q[:, :, :b], q[:, :, -b:]], dim=2)
        first, last = attend(ends, k, v, visible=valid[:, None, None]).chunk(2, dim=2)
        table, counts = blocks(plan)
        at = table.flatten(1)[None, :, :, None]  # (1, H, M·K, 1): key blocks of every query block, one after another
        q = q[:, :, b:-b].unflatten(2, (N - 2, b)).flatten(1, 2)
        k, v = (x.unflatten(2, (N, b)).flatten(3).gather(2, at.expand(B, -1, -1, b * d)) for x in (k, v))
        k, v = (x.unflatten(2, table.shape[1:]).reshape(B, H * (N - 2), -1, d) for x in (k, v))
        seen = valid.unflatten(1, (N, b))[:, table] & counts[:, :, None]  # (B, H, M, K, b)
        y = attend(q, k, v, visible=seen.flatten(3).flatten(1, 2)[:, :, None])
        return torch.cat([first, y.unflatten(1, (H, N - 2)).flatten(2, 3), last], dim=2)[:, :, :T]

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        branch_(self.query, self.key, self.value, out=self.out, depth=depth)


def draw(N: int, heads: int, r: int, *, seed: int) -> np.ndarray:
    """The r random key blocks of query blocks 1 .. N − 2, for each head: (heads, N − 2, r).

    The official plan, with its calls of NumPy's generator in their order, for N > 2r + 5 blocks. It draws from the
    first P = 2r + 5 blocks only, whatever N, and keeps blocks 1 and P − 2 apart.
    """
    generator, P = np.random.RandomState(seed), 2 * r + 5
    plan = np.zeros((heads, N - 2, r), dtype=np.int64)
    for i in range(1, N - 1):
        taken = {0, P - 1, i - 1, i, i + 1} | ({P - 2} if i == 1 else set()) | ({1} if i == P - 2 else set())
        for head in range(heads):
            order = generator.permutation(P)
            plan[head, i - 1] = [j for j in order if j not in taken][:r]
    return plan


def blocks(plan: Int[Tensor, "H M r"]) -> tuple[Int[Tensor, "H M K"], Bool[Tensor, "M K"]]:
    """The K = 5 + r key blocks of query blocks 1 .. M = N − 2; and which count: a global one in the window once."""
    H, M, r = plan.shape
    i = torch.arange(1, M + 1, device=plan.device)
    fixed = torch.stack([torch.zeros_like(i), i - 1, i, i + 1, torch.full_like(i, M + 1)], dim=1)
    once = F.pad(torch.stack([i > 1, i < M], dim=1), (0, 3), value=True)[:, [0, 2, 3, 4, 1]]
    return torch.cat([fixed.expand(H, -1, -1), plan], dim=2), F.pad(once, (0, r), value=True)

"""Sinkhorn attention: each block sees itself and one that a learned sorting brings beside it (Tay et al. 2020,
arXiv:2002.11296, section 3).

    R_{i,j} = relu([Σ_{t∈i} q_t, Σ_{t∈i} k_t] W_j)             simple sorting net, one vector W_j per block
    R_{i,j} = relu(mean_{t∈i} q_t · mean_{t∈j} k_t / √d)       attention as sorting net
    P = Sinkhorn((log(R + ε) + Gumbel noise) / τ)             doubly stochastic: rows and columns by turns, n times
    y_t = softmax([(P K)_i, K_i] q_t / √d) [(P V)_i, V_i]      for t in block i

`sort_net` chooses R. Every head sorts for itself. Noise is drawn in training only. Blocks of padding take no part.
There is no official code; we follow lucidrains/sinkhorn-transformer, SinkhornSelfAttention with non_permutative=False.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, ParamOverride, State, Traits, Unsupported
from zoo.layers.linear import branch_
from zoo.layers.multi_head import MultiHead
from zoo.layers.ranges import positive
from zoo.layers.tensors import in_fp32, merge_heads, split_heads
from zoo.ops.attention import attend

EPS = 1e-6


@register(
    family="efficient attention",
    paper="Tay et al. 2020, Sparse Sinkhorn Attention, arXiv:2002.11296",
    source="https://github.com/lucidrains/sinkhorn-transformer (the authors published no code of this model)",
    deviations=(
        "scores pass log(relu(R) + 1e-6) before balancing, as in lucidrains; the paper balances exp(R)",
        "values of the sorted block are sorted values (paper); lucidrains 0.11.4 puts the sorted keys in their place",
        "Gumbel noise in training only; lucidrains draws it when evaluating too",
        "sort_net='simple' is the paper's network, here relu of one linear map of the summed queries and keys of a "
        "block (lucidrains); 'attention', parameter-free and lucidrains' default, is the alternative",
        "blocks of padding take no part in the sorting",
        "not causal: column sums over the blocks of a sequence let the future in; no SortCut, no local heads",
        "blocks of 16 tokens (paper); lucidrains has 64",
        "residual type, GELU and initialisation (but for the sorting network) are pre_ln's",
    ),
    positions="learned",
)
class Sinkhorn(MultiHead):
    """Transformer whose blocks of tokens see themselves and one that a learned soft permutation brings; not causal.

    Args:
        block_size: steps in a block; a sequence of one block has full attention.
        sort_net: "simple" has weights W for as many blocks as `context.length` takes; "attention" has none.
        temperature: τ. iterations: n.
    """

    traits = Traits(causal="no", bidirectional=True, resumable=False, length="max", stochastic=True)
    relative = ("rotation",)

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        block_size: int = 16,
        sort_net: Literal["simple", "attention"] = "simple",
        temperature: float = 0.75,
        iterations: int = 5,
    ) -> None:
        super().__init__(context, "sinkhorn", heads)
        positive("sinkhorn", block_size=block_size, iterations=iterations, temperature=temperature)
        self.block_size, self.length = block_size, context.length
        self.temperature, self.iterations = temperature, iterations
        self.to_q = nn.Linear(context.width, context.width, bias=False)
        self.to_kv = nn.Linear(context.width, 2 * context.width, bias=False)
        self.to_out = nn.Linear(context.width, context.width)
        shape = (1, heads, 2 * self.head_width, -(-context.length // block_size))
        self.linear = nn.Parameter(torch.empty(shape)) if sort_net == "simple" else None
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        if state is not None:
            raise Unsupported("Sinkhorn attention cannot continue from a state")
        (B, T, _), b = x.shape, self.block_size
        if self.length < T:
            raise ValueError(f"sinkhorn: {T} steps; built for {self.length} at most")
        valid = x.new_ones(B, T, dtype=torch.bool) if mask is None else mask
        x, valid = F.pad(x, (0, 0, 0, -T % b)), F.pad(valid, (0, -T % b)).unflatten(1, (-1, b))  # (B, N, b)
        x = x.masked_fill(~valid.flatten(1)[..., None], 0)
        P = self.sort(x, valid.any(2))
        q, k, v = (split_heads(y, self.heads) for y in (self.to_q(x), *self.to_kv(x).chunk(2, -1)))
        q, k = self.positions.rotate_both(q, k, torch.arange(x.shape[1], device=x.device)[None])
        q, k, v = (z.unflatten(2, (-1, b)) for z in (q, k, v))
        k, v = (torch.cat([torch.einsum("bhij,bhjtd->bhitd", P.to(y.dtype), y), y], dim=3) for y in (k, v))
        # A sorted block is a mixture; as in the code we follow, it has the padding of the block that weighs most in it.
        own = valid[:, None].expand(-1, self.heads, -1, -1)
        heaviest = P.argmax(3, keepdim=True).expand(-1, -1, -1, b)
        seen = torch.cat([own.gather(2, heaviest), own], dim=3)[..., None, :]
        itself = F.pad(torch.eye(b, dtype=torch.bool, device=x.device), (b, 0))
        y = attend(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2), visible=(seen | itself).flatten(1, 2))
        y = y.unflatten(1, (self.heads, -1)).flatten(2, 3)[:, :, :T]
        return self.to_out(merge_heads(y)), None

    @in_fp32
    def sort(self, x: Float[Tensor, "B T D"], alive: Bool[Tensor, "B N"]) -> Float[Tensor, "B H N N"]:
        """P, in float32 at least. The sums of queries and keys are projections of the sums of x."""
        total = x.unflatten(1, (-1, self.block_size)).sum(2)
        projections = (self.to_q.weight, self.to_kv.weight.chunk(2)[0])
        q, k = (split_heads(F.linear(total, W.to(total.dtype)), self.heads) for W in projections)  # (B, H, N, d)
        if self.linear is None:
            R = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 / self.block_size**2)
        else:
            R = torch.cat([q, k], dim=3) @ self.linear[..., : alive.shape[1]]
        R = torch.log(R.relu() + EPS)
        if self.training:
            R = R - torch.log(-torch.log(torch.rand_like(R) + EPS) + EPS)
        return balance(R / self.temperature, self.iterations, alive)

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_`; the sorting network ~ N(0, 1)."""
        branch_(self.to_q, self.to_kv, out=self.to_out, depth=depth)
        if self.linear is not None:
            nn.init.normal_(self.linear)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """The sorting network is a linear layer, and decays as one."""
        return {} if self.linear is None else {"linear": ParamOverride(decay=True)}


def balance(
    log_R: Float[Tensor, "B H N N"], iterations: int, alive: Bool[Tensor, "B N"] | None = None
) -> Float[Tensor, "B H N N"]:
    """Sinkhorn's balancing of e^{log R} (section 3.2.1). Blocks that are not `alive` map to themselves."""
    if alive is not None:
        N = alive.shape[1]
        eye = torch.eye(N, dtype=torch.bool, device=log_R.device)
        pairs = (alive[:, :, None] & alive[:, None, :])[:, None]
        log_R = log_R.masked_fill(~pairs, float("-inf")).masked_fill(~pairs & eye, 0)
    for _ in range(iterations):
        log_R = log_R - log_R.logsumexp(3, keepdim=True)
        log_R = log_R - log_R.logsumexp(2, keepdim=True)
    return log_R.exp()

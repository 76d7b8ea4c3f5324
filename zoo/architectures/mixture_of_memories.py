"""Mixture of memories: a router sends each token to a few of many states (Du et al. 2025, arXiv:2502.13685, section 3).

    p_t = softmax(x_t W_r),    M_t = top-k(p_t),    γ_{t,m} = p_{t,m} / Σ_{i ∈ M_t} p_{t,i}
    S ← α_{t,m} S_{t′,m},    S_{t,m} = S + β_{t,m} k_{t,m} (v_{t,m} − Sᵀ k_{t,m})ᵀ        (m ∈ M_t)
    o_t = S_{t,0}ᵀ q_{t,0} / √d + Σ_{m ∈ M_t} γ_{t,m} S_{t,m}ᵀ q_{t,m} / √d,    y_t = (RMSNorm(o_t) ⊙ SiLU(x_t W_g)) W_o

M_t are the k memories that the router gives the largest weights, t′ is the token before t that went to memory m. Each
memory is a Gated DeltaNet (see `gated_delta_net`) over its own tokens alone: its convolutions see only these, and the
others neither decay nor change its state. k, v, β and α have projections for each memory; that of q, the convolutions,
`A_log` and `dt_bias` serve all. Memory 0 is the shared one: every token goes there.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State
from zoo.deviations import SWIGLU_WIDTH, TORCH_CONVOLUTIONS
from zoo.layers.delta_rule import DeltaRuleHeads, decay_, head_sizes, log_decay
from zoo.layers.linear import few
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.tensors import in_fp32, merge_heads, split_heads, take_steps, zero_padding
from zoo.ops.delta_rule import delta_rule


@register(
    family="fast weights and matrix states",
    paper="Du et al. 2025, MoM: Linear Sequence Modeling with Mixture-of-Memories, arXiv:2502.13685",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/mom.py, fla/models/mom)",
    deviations=(
        "no loss that balances the memories; the official model adds one, times 0.01, to that of the task",
        "convolutions keep to the tokens of one memory in training too, where those of the official code run on from "
        "one memory to the next, and so from the future; its evaluation mode does as here",
        "4 heads of half the width between them, with values as wide as keys, as the official model has at width 2048",
        "e^A_log starts at 1e-4 at least; the official U(0, 16) may draw 0, whose logarithm would never move",
        SWIGLU_WIDTH,
        "weights start at N(0, 1/fan_in), where the official layer has Xavier's uniform distribution times 2^−2.5 and "
        "its model N(0, 0.02), the projection to the residual at 1/√(2·depth) of it",
        TORCH_CONVOLUTIONS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class MixtureOfMemories(DeltaRuleHeads):
    """Mixture of memories: several Gated DeltaNet states, of which each token reads and writes a few.

    State: of M memories, the shared one behind the others: `S` (B, M, H, K, V) in float32 at least, and the last
    inputs (B, M, channels, conv_size − 1) of the convolutions `q`, `k` and `v`.

    Args:
        head_dim: K; None for half the width over the heads.
        expand_v: V / K.
        num_memories, topk: how many there are, and k.
        shared_mem: one more memory, of all tokens.
        single_kv_proj: one projection of k, v, β and decays for all memories.
        use_output_gate: the gate SiLU(x W_g) on the output.
        conv_size, conv_bias: the convolutions on q, k and v.
    """

    parts = 4  # keys take two of them: a unit vector of one feature is but a sign

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        expand_v: float = 1.0,
        use_output_gate: bool = True,
        conv_size: int = 4,
        conv_bias: bool = False,
        norm_eps: float = 1e-5,
        num_memories: int = 4,
        topk: int = 2,
        shared_mem: bool = True,
        single_kv_proj: bool = False,
    ) -> None:
        name, D = "mixture_of_memories", context.width
        at_least_one(name, conv_size=conv_size, num_memories=num_memories)
        positive(name, norm_eps=norm_eps)
        if not 1 <= topk <= num_memories:
            raise ValueError(f"{name}: topk {topk} must lie in 1 .. {num_memories}, the number of memories")
        H, K, V = head_sizes(name, D / 2, heads, None, head_dim, expand_v)
        super().__init__(context, heads=H, value_heads=H, K=K, V=V)
        self.memories, self.topk, self.shared_mem = num_memories, topk, shared_mem
        sizes = {"k": H * K, "v": H * V, "b": H, "a": H}
        self.q_proj = nn.Linear(D, H * K, bias=False)
        self.gate = nn.Linear(D, num_memories, bias=False)
        for part, size in sizes.items():
            if not single_kv_proj:
                every = (nn.Linear(D, size, bias=False) for _ in range(num_memories))
                self.add_module(f"{part}_proj", nn.ModuleList(every))
            if single_kv_proj or shared_mem:
                self.add_module(f"shared_{part}", nn.Linear(D, size, bias=False))
        self.add_decay(H)
        self.add_convolutions(conv_size, bias=conv_bias)
        self.add_output(norm_eps, gate="swish" if use_output_gate else None)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        q, (weights, chosen) = self.q_proj(x), few(x, self.gate.weight).softmax(-1).topk(self.topk)
        routed = torch.zeros(*x.shape[:2], self.memories, dtype=torch.bool, device=x.device).scatter(-1, chosen, True)
        routed = zero_padding(routed, mask)
        steps, valid = tokens_of(routed)
        own_q, own_x = (torch.take_along_dim(z[:, None], steps[..., None], dim=2) for z in (q, x))
        o, new = self._recall(own_q, own_x, valid, _memories(state, slice(self.memories)))
        place = (routed.cumsum(1) - 1).clamp(min=0).gather(-1, chosen)  # of a token among those of its memory
        o = take_steps(o.flatten(1, 2), (chosen * steps.shape[2] + place).flatten(1)).unflatten(1, (-1, self.topk))
        o = ((weights / weights.sum(-1, keepdim=True))[..., None] * o).sum(2)
        if self.shared_mem:
            every, last = None if mask is None else mask[:, None], _memories(state, slice(self.memories, None))
            of_all, also = self._recall(q[:, None], x[:, None], every, last, shared=True)
            o, new = o + of_all[:, 0], {name: torch.cat([z, also[name]], dim=1) for name, z in new.items()}
        return self.read(split_heads(o, self.heads), x), None if state is None else new

    def _recall(
        self,
        q: Float[Tensor, "B E L F"],
        x: Float[Tensor, "B E L D"],
        mask: Bool[Tensor, "B E L"] | None,
        state: State | None,
        *,
        shared: bool = False,
    ) -> tuple[Float[Tensor, "B E L G"], State]:
        """What each of E memories returns for its own tokens, and their next states; or the `shared` one, E = 1."""
        k, v, b, a = (self._weights(part, shared) for part in "kvba")
        features = torch.cat([q, x @ torch.cat([k, v], dim=-1)], dim=-1).flatten(0, 1)
        beta, g = _product(x, torch.cat([b, a], dim=-1)).flatten(0, 1).chunk(2, dim=-1)
        mask = None if mask is None else mask.flatten(0, 1)
        before = None if state is None else {name: z.flatten(0, 1) for name, z in state.items()}
        q, k, v, new = self.by_head(features, mask, before)
        beta, g = beta.sigmoid(), log_decay(g, self.A_log, self.dt_bias)
        beta, g = (zero_padding(z, mask).transpose(1, 2) for z in (beta, g))
        o, new["S"] = delta_rule(q, k, v, beta, g, None if before is None else before["S"])
        new = {name: z.unflatten(0, x.shape[:2]) for name, z in new.items() if z is not None}
        return merge_heads(o).unflatten(0, x.shape[:2]), new

    def _weights(self, part: str, shared: bool) -> Float[Tensor, "E D F"]:
        """Of the projections to k, v, b or a; one for all memories where they share it."""
        own: Any = getattr(self, f"{part}_proj", None)
        layers: Any = [getattr(self, f"shared_{part}")] if shared or own is None else own
        return torch.stack([layer.weight for layer in layers]).mT

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        count = self.memories + self.shared_mem
        state = super().init_state(batch * count, device=device, dtype=dtype)
        return {name: z.unflatten(0, (batch, count)) for name, z in state.items()}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `decay_`; the rest as DeltaNet."""
        super().reset_parameters(layer=layer, depth=depth)
        decay_(self.A_log, self.dt_bias)


def tokens_of(routed: Bool[Tensor, "B T E"]) -> tuple[Int[Tensor, "B E T"], Bool[Tensor, "B E T"]]:
    """The steps in the order of each memory, those that go to it first, and which do: all steps count as work for each,
    so that a training step costs the same wherever tokens are sent."""
    steps = (~routed).byte().argsort(dim=1, stable=True).mT
    return steps, torch.arange(routed.shape[1], device=routed.device) < routed.sum(1)[..., None]


@in_fp32
def _product(x: Float[Tensor, "B E L D"], weight: Float[Tensor, "#E D F"]) -> Float[Tensor, "B E L F"]:
    return x @ weight


def _memories(state: State | None, which: slice) -> State | None:
    """The states of some memories."""
    return None if state is None else {name: z[:, which] for name, z in state.items()}

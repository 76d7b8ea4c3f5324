"""Raven: slots of which a router chooses the few that a step may change (Afzal et al. 2026).

    q_t, k_t, v_t = RMSNorm(SiLU(x_t W_q)), RMSNorm(SiLU(x_t W_k)), SiLU(x_t W_v)
    r_t = top_n(σ(x_t W_r)) / Σ top_n(σ(x_t W_r)),    g_t = −e^A softplus(x_t W_a + b),    a_t = e^{g_t r_t}
    K_t = K_{t−1} diag(a_t) + k_t (1 − a_t)ᵀ,    V_t = diag(a_t) V_{t−1} + (1 − a_t) v_tᵀ
    o_t = V_tᵀ softmax(K_tᵀ q_t),    y_t = RMSNorm(SiLU(o_t)) W_o

per head, with the last norm over all heads: gated slot attention in which a slot outside the top n keeps all it holds.
A is the parameter `A_log`, b `dt_bias`. With fewer key/value heads, each serves neighbouring query heads.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, Part, State, Traits
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH
from zoo.layers.linear import fan_in_, few, joined, residual_scale, softplus_bias_
from zoo.layers.norms import HeadNorm
from zoo.layers.ranges import at_least_one, head_sizes, positive, shared_heads, width_multiple
from zoo.layers.tensors import in_fp32, merge_heads, split_heads, zero_padding, zeros_fp32
from zoo.ops.linear_attention.naive import repeat
from zoo.ops.slot_attention import slot_attention


@register(
    family="fast weights and matrix states",
    paper="Afzal et al. 2026, Raven: High-Recall Sequence Modeling with Sparse Memory Routing, "
    "https://github.com/goombalab/raven",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/raven.py, fla/models/raven)",
    deviations=(
        "half of the slots are routed to by default, as in the official model; the official layer has 32, or all",
        "no rotary positions, no bias of the ranking (which no gradient would reach) and a linear router, the official "
        "defaults; feature maps and gates are SiLU alone",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class Raven(Mixer):
    """Raven: softmax over slots, of which each step decays and writes only those that a router chooses.

    State: `K` (B, H, K, M) and `V` (B, H, M, V) in float32 at least.

    Args:
        kv_heads: heads of keys, values, routers and slots; None for as many as queries have.
        expand_k, expand_v: the width of all keys and of all values, relative to D.
        num_slots: M; None for as many as a key is wide. topk: n; None for half of them.
        decay_type: g of a head and a step, as in Mamba-2; or of each slot, ln σ(x W_f) / τ, as in GLA.
        gate_logit_normalizer: τ.
        router_score: σ, over its sum; or the softmax over all slots, as it stands.
        add_gumbel_noise: while training, W_r x has Gumbel noise, so that every slot is tried.
        use_output_gate: a norm per head and SiLU(x W_g) behind it, in the place of the norm over all heads.
        norm_eps: ε of all norms.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        kv_heads: int | None = None,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        num_slots: int | None = None,
        topk: int | None = None,
        decay_type: Literal["Mamba2", "GLA"] = "Mamba2",
        gate_logit_normalizer: float = 8.0,
        router_score: Literal["sigmoid", "softmax"] = "sigmoid",
        add_gumbel_noise: bool = True,
        use_output_gate: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(context)
        D = context.width
        at_least_one("raven", heads=heads, num_slots=num_slots)
        positive("raven", gate_logit_normalizer=gate_logit_normalizer, norm_eps=norm_eps)
        self.heads, self.kv_heads = heads, shared_heads("raven", heads, kv_heads)
        self.K, self.V = head_sizes("raven", D, heads, expand_k, expand_v)
        self.slots = self.K if num_slots is None else num_slots
        self.topk = max(1, self.slots // 2) if topk is None else topk
        if not 1 <= self.topk <= self.slots:
            raise ValueError(f"raven: topk must lie in 1 .. {self.slots}, the number of slots, got {topk}")
        self.tau, self.router_score, self.noisy = gate_logit_normalizer, router_score, add_gumbel_noise
        G, values = self.kv_heads, heads * self.V
        self.q_proj = nn.Linear(D, heads * self.K, bias=False)
        self.k_proj = nn.Linear(D, G * self.K, bias=False)
        self.v_proj = nn.Linear(D, G * self.V, bias=False)
        self.f_proj = self.a_proj = self.o_gate_proj = None
        if decay_type == "GLA":
            self.f_proj = nn.Linear(D, G * self.slots, bias=False)
        else:
            self.a_proj = nn.Linear(D, G, bias=False)
            self.A_log = nn.Parameter(torch.empty(G))
            self.dt_bias = nn.Parameter(torch.empty(G))
        self.r_proj = nn.Linear(D, G * self.slots, bias=False)
        self.q_norm, self.k_norm = HeadNorm(self.K, norm_eps), HeadNorm(self.K, norm_eps)
        if use_output_gate:
            self.o_gate_proj = nn.Linear(D, values, bias=False)
            self.o_norm = HeadNorm(self.V, norm_eps)
        else:
            self.g_norm = HeadNorm(values, norm_eps)
        self.o_proj = nn.Linear(values, D, bias=False)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    @classmethod
    def width_multiple(cls, *, heads: int, expand_k: float, expand_v: float, **_: Any) -> int:
        return width_multiple(heads, expand_k, expand_v)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        projections = self.q_proj, self.k_proj, self.v_proj
        features = F.silu(joined(x, *(projection.weight for projection in projections)))
        q, k, v = features.split([projection.out_features for projection in projections], dim=-1)
        q, k, v = split_heads(q, self.heads), split_heads(k, self.kv_heads), split_heads(v, self.kv_heads)
        log_decay = zero_padding(self.log_decay(x) * self.route(x), mask, 2)
        q, k = self.q_norm(q), self.k_norm(k)
        k, v, log_decay = (repeat(z, self.heads) for z in (k, v, log_decay))
        before = None if state is None else (state["K"], state["V"])
        o, (K, V) = slot_attention(q, k, v, -torch.expm1(log_decay), log_decay, before)
        y = self.o_proj(self._normed(F.silu(o), x).to(x.dtype))
        return y, None if state is None else {"K": K, "V": V}

    @in_fp32
    def log_decay(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B G T #M"]:
        """g ≤ 0."""
        if self.f_proj is not None:
            return split_heads(F.logsigmoid(few(x, self.f_proj.weight)) * (1 / self.tau), self.kv_heads)
        assert self.a_proj is not None
        g = -self.A_log.exp() * F.softplus(few(x, self.a_proj.weight) + self.dt_bias)
        return g.transpose(1, 2)[..., None]

    def route(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B G T M"]:
        """r: positive for the n slots with the largest scores, 0 for the others."""
        router = split_heads(few(x, self.r_proj.weight), self.kv_heads)
        if self.noisy and self.training:
            router = router - torch.empty_like(router).exponential_().log()
        if self.router_score == "softmax":
            score, at = router.softmax(-1).topk(self.topk)
        else:
            score, at = router.sigmoid().topk(self.topk)
            score = score / (score.sum(-1, keepdim=True) + 1e-9)
        return torch.zeros_like(router).scatter(-1, at, score)

    def _normed(self, o: Float[Tensor, "B H T V"], x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T E"]:
        if self.o_gate_proj is None:
            return self.g_norm(merge_heads(o))
        gate = self.o_gate_proj(x).unflatten(-1, (self.heads, -1))
        return self.o_norm(o.transpose(1, 2), gate).flatten(2)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {
            "K": zeros_fp32(batch, self.heads, self.K, self.slots, device=device, dtype=dtype),
            "V": zeros_fp32(batch, self.heads, self.slots, self.V, device=device, dtype=dtype),
        }

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 1/fan_in), W_o scaled by 1/√(2·depth); e^A ~ U(1e-4, 16), softplus(b) log-uniform; norms one."""
        for part in self.children():
            if isinstance(part, nn.Linear):
                fan_in_(part, residual_scale(depth) if part is self.o_proj else 1.0)
            elif isinstance(part, HeadNorm):
                part.reset_parameters()
        if self.a_proj is not None:
            self.A_log.uniform_(1e-4, 16).log_()
            softplus_bias_(self.dt_bias, 1e-3, 1e-1, floor=1e-4)

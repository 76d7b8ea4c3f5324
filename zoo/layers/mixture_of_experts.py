"""A mixture of experts as the channel mixer: each step goes through k of E gated MLPs (Shazeer et al. 2017,
arXiv:1701.06538; as in DeepSeek-V3, arXiv:2412.19437, section 2.1.2, eq. 12–16).

    s = σ(W_r x),    C = the k experts with the largest s + b,    g_e = s_e / Σ_{j ∈ C} s_j
    y = λ Σ_{e ∈ C} g_e MLP_e(x) + MLP_shared(x),    MLP_e(x) = W₂ᵉ (SiLU(W_gᵉ x) ⊙ W₁ᵉ x)

b balances without an auxiliary loss (Wang et al. 2024, arXiv:2408.15664): it decides which experts are chosen, weighs
none of them, and falls for those with more than their share of steps. There it moves by a constant against the sign of
the excess; here the excess is its gradient, and AdamW, whose steps do not depend on a gradient's size, does the same.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, State, Traits
from zoo.layers.linear import few, residual_scale
from zoo.layers.mlp import GLU
from zoo.layers.ranges import at_least_one, hidden_units, positive
from zoo.ops.kernel_log import log_kernel

EXCESS = 1e-6
"""What the excess, in steps, is multiplied by, so that it is nothing beside other gradients when they are clipped."""


class MixtureOfExperts(Mixer):
    """k of E SwiGLUs, and shared ones that see every step. Parameters of the experts are stacked: (E, …).

    Args:
        experts: E. top_k: k. shared: how many experts' width the one has that sees every step; 0 for none.
        expand: the hidden width of one expert, relative to D.
        score: σ of each logit, or their softmax (Qwen3-Next, Jamba). normalise: divide by the sum over C.
        scale: λ. shared_gate: multiply the shared expert's output by σ(w·x) (Qwen3-Next).
        balance: whether there is a b.
    """

    traits = Traits(causal="strict", bidirectional=True, resumable=True)

    def __init__(
        self,
        context: LayerContext,
        *,
        experts: int = 8,
        top_k: int = 2,
        shared: int = 1,
        expand: float = 8 / 9,
        score: Literal["sigmoid", "softmax"] = "sigmoid",
        normalise: bool = True,
        scale: float = 1.0,
        shared_gate: bool = False,
        balance: bool = True,
    ) -> None:
        super().__init__(context)
        at_least_one("moe", experts=experts, top_k=top_k)
        positive("moe", scale=scale)
        if top_k > experts:
            raise ValueError(f"moe: top_k {top_k} of {experts} experts")
        if shared < 0 or (shared_gate and not shared):
            raise ValueError(f"moe: {shared} shared experts" + " have no gate (shared_gate)" * shared_gate)
        D, hidden = context.width, hidden_units("moe", expand, context)
        self.top_k, self.score, self.normalise, self.scale, self.gain = top_k, score, normalise, scale, context.gain
        self.router = nn.Linear(D, experts, bias=False)
        self.bias = nn.Parameter(torch.zeros(experts)) if balance else None
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * hidden, D))  # W_g above W₁, as in transformers
        self.down = nn.Parameter(torch.empty(experts, D, hidden))
        self.shared = GLU(context, expand=shared * hidden / D) if shared else None
        self.shared_gate = nn.Linear(D, 1, bias=False) if shared_gate else None

    @property
    def inactive(self) -> int:
        """How many parameters one step does not go through."""
        E = len(self.down)
        return (self.gate_up.numel() + self.down.numel()) // E * (E - self.top_k)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        chosen, weights = self.route(x.flatten(0, 1), None if mask is None else mask.flatten())
        y = self.experts(x.flatten(0, 1), chosen, weights).view_as(x)
        if self.shared is not None:
            always = self.shared(x)[0]
            if self.shared_gate is not None:
                always = always * few(x, self.shared_gate.weight).sigmoid().to(always.dtype)
            y = y + always
        return y, state

    def route(
        self, x: Float[Tensor, "N D"], valid: Tensor | None = None
    ) -> tuple[Int[Tensor, "N k"], Float[Tensor, "N k"]]:
        """C and λ g of every step, in float32 at least; `valid` says which steps count for the balance."""
        logits = few(x, self.router.weight)
        log_s = F.logsigmoid(logits) if self.score == "sigmoid" else logits.log_softmax(-1)
        chosen = (log_s if self.bias is None else log_s.exp() + self.bias).topk(self.top_k, dim=-1).indices
        g = log_s.gather(1, chosen)
        g = g.softmax(-1) if self.normalise else g.exp()  # s over their sum, of which s may all be 0
        if self.bias is not None and self.bias.requires_grad:
            load = F.one_hot(chosen, len(self.bias)).sum(1)
            load = (load if valid is None else load * valid[:, None]).sum(0).to(self.bias.dtype)
            g = Balanced.apply(g, self.bias, load - load.mean())
        return chosen, self.scale * g

    def experts(
        self, x: Float[Tensor, "N D"], chosen: Int[Tensor, "N k"], weights: Float[Tensor, "N k"]
    ) -> Float[Tensor, "N D"]:
        """Σ over `chosen` of `weights` times MLP_e(x); the rows of each expert go through one product."""
        log_kernel("moe", "torch")
        order = chosen.flatten().argsort(stable=True)
        rows, E = order // self.top_k, len(self.down)
        sizes = [len(order) // E + (e < len(order) % E) for e in range(E)]  # without data, all have as much to do
        if not x.is_meta:
            sizes = chosen.flatten().bincount(minlength=E).tolist()
        parts = []
        for part, gate_up, down in zip(x[rows].split(sizes), self.gate_up, self.down, strict=True):
            gate, up = F.linear(part, gate_up).chunk(2, dim=-1)
            parts.append(F.linear(F.silu(gate) * up, down))
        y = torch.cat(parts)
        return torch.zeros_like(x, dtype=y.dtype).index_add(0, rows, y * weights.flatten()[order, None].to(y.dtype))

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 1/fan_in), W₂ scaled by 1/√(2·depth), b = 0."""
        D, hidden = self.down.shape[1:]
        nn.init.normal_(self.router.weight, std=D**-0.5)
        nn.init.normal_(self.gate_up, std=D**-0.5)
        nn.init.normal_(self.down, std=hidden**-0.5 * (self.gain or residual_scale(depth)))
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.shared is not None:
            self.shared.reset_parameters(layer=layer, depth=depth)
        if self.shared_gate is not None:
            nn.init.normal_(self.shared_gate.weight, std=D**-0.5)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """No weight decay on b; the experts' weights decay as those of linear layers."""
        found = dict.fromkeys(("gate_up", "down"), ParamOverride(decay=True))
        return found if self.bias is None else {**found, "bias": ParamOverride(decay=False)}


class Balanced(torch.autograd.Function):
    """g as it is; the gradient of b is the excess, whatever the loss."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, bias: Tensor, excess: Tensor) -> Tensor:
        ctx.save_for_backward(excess)
        return g.view_as(g)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dg: Tensor) -> tuple[Tensor, Tensor, None]:
        return dg, EXCESS * ctx.saved_tensors[0], None

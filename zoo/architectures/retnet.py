"""Multi-scale retention (Sun et al. 2023, RetNet, arXiv:2307.08621, section 2).

    q_t = R_t W_q x_t,    k_t = R_t W_k x_t / √K,    v_t = W_v x_t
    S_t = γ S_{t−1} + k_t v_tᵀ,    o_t = S_tᵀ q_t / (√λ_t c_t),    λ_t = Σ_{s ≤ t} γ^{t−s}
    y = W_o (swish(W_g x) ⊙ RMSNorm(o))

per head h = 0, 1, ..., with γ = 1 − 2^{−5−h}. R_t turns each pair (x_2i, x_2i+1) by the angle t θ_i, where
θ = 10000^{−linspace(0, 1, K/2)}. The RMSNorm has no weights, and divides out √λ c but for its ε: the official forms,
which differ in c, agree only after it, to about 1e-5. We compute two of them:

    recurrent    c_t = 1
    parallel     c_t = Σ_{s ≤ t} |q_t·k_s| γ^{t−s} / √λ_t, clamped to [1, 5e4] and constant for the gradient

A sum of absolute values over pairs (t, s) is no function of a state of fixed size: only `recurrent` can be continued.
"""

import dataclasses
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, Part, State, Traits, Unsupported
from zoo.layers.norms import HeadNorm
from zoo.layers.qkv import rotate
from zoo.layers.ranges import positive, width_multiple
from zoo.layers.tensors import in_fp32, merge_heads, split_heads, zero_padding, zeros_fp32
from zoo.ops.linear_attention import linear_attention

Form: TypeAlias = Literal["recurrent", "parallel"]
Turn: TypeAlias = tuple[Tensor, Tensor]


@register(
    family="fast weights and matrix states",
    paper="Sun et al. 2023, Retentive Network: A Successor to Transformer for Large Language Models, arXiv:2307.08621",
    source="https://github.com/microsoft/torchscale (torchscale/component/multiscale_retention.py, "
    "torchscale/architecture/retnet.py)",
    deviations=(
        "form=recurrent, the default, divides scores by √Σγ^n only, as the official recurrent form; the official "
        "parallel form (form=parallel) also divides by the sum of their moduli, at least 1. The RMSNorm undoes both "
        "but for its ε: the two differ by about 1e-5. As that sum has no state of fixed size, form=parallel cannot be "
        "continued",
        "the official chunkwise form, which normalises in a third way, is not offered",
        "keys are scaled by 1/√d, rotations are plain, without xPos magnitudes, and blocks are Pre-RMSNorm with a GLU, "
        "all as in the official code; the paper has LayerNorm and an MLP without gate",
        "values are twice as wide as the model, as in the paper; the official code's are 5/3 as wide. The GLU is 4/3 "
        "as wide, which makes a block of 12 D² weights, as both do",
        "the official heads are 256 wide; here there are 4, whatever the width",
    ),
    channel=Part("glu", activation="gelu", expand=4 / 3),
    norm="rms",
)
class Retention(Mixer):
    """RetNet: rotated linear attention with a fixed decay per head, a norm per head and a gate.

    State: `S` (B, H, K, V) in float32 at least, and `position` (B,), the valid steps seen.

    Args:
        value_factor: width of all values, relative to D.
        form: which official normalisation of scores to follow. "parallel" costs O(T²) and cannot be continued.
        eps: ε of the RMSNorm.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        value_factor: float = 2.0,
        gate_fn: Literal["swish", "gelu"] = "swish",
        form: Form = "recurrent",
        eps: float = 1e-6,
    ) -> None:
        super().__init__(context)
        D, V = context.width, int(context.width * value_factor)
        if heads < 1 or D % heads or D // heads % 2:
            raise ValueError(f"retnet: width {D} does not divide into {heads} heads of even width")
        if V < 1 or V % heads:
            raise ValueError(f"retnet: values {V} wide (value_factor · {D}) do not divide into {heads} heads")
        positive("retnet", eps=eps)
        self.heads, self.form = heads, form
        self.norm = HeadNorm(V // heads, eps, gate_fn, weight=False)
        if form == "parallel":
            self.traits = dataclasses.replace(self.traits, resumable=False)  # type: ignore[misc]
        self.q_proj, self.k_proj = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
        self.v_proj, self.g_proj = nn.Linear(D, V, bias=False), nn.Linear(D, V, bias=False)
        self.out_proj = nn.Linear(V, D, bias=False)

    @classmethod
    def width_multiple(cls, *, heads: int, value_factor: float, **_: Any) -> int:
        return width_multiple(heads, 0.5, value_factor)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        if state is not None and self.form == "parallel":
            raise Unsupported("retnet: form='parallel' cannot continue from a state")
        T = x.shape[1]
        x = zero_padding(x, mask)  # no biases: k and v become 0 as well
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        how = self.heads, self.form, q.shape[-1] // self.heads, q.dtype
        if state is None:
            turn_q, turn_k = first_turns(T, *how, x.device)
        else:
            turn_q, turn_k = turns(state["position"][:, None] + torch.arange(T, device=x.device), *how)
        log_decay, new = log_gammas(self.heads, x.device), None
        if self.form == "parallel":
            o = in_parallel(q, k, v, turn_q, turn_k, log_decay)
        else:
            q, k = rotate(q, *turn_q), rotate(k, *turn_k)
            every = zero_padding(log_decay.to(turn_q[0].dtype)[None, :, None].expand(1, -1, T), mask, 2)
            q, k, v = (split_heads(z, self.heads) for z in (q, k, v))
            o, S = linear_attention(q, k, v, every, None if state is None else state["S"])
            if state is not None:
                new = {"S": S, "position": state["position"] + (T if mask is None else mask.sum(1))}
        y = self.norm(o.transpose(1, 2), self.g_proj(x).unflatten(-1, (self.heads, -1)))
        return self.out_proj(y.flatten(2).to(x.dtype)), new

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        K, V = (p.out_features // self.heads for p in (self.k_proj, self.v_proj))
        S = zeros_fp32(batch, self.heads, K, V, device=device, dtype=dtype)
        return {"S": S, "position": torch.zeros(batch, device=device, dtype=torch.long)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Xavier-uniform with the official gains."""
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.g_proj):
            nn.init.xavier_uniform_(projection.weight, gain=2**-2.5)
        nn.init.xavier_uniform_(self.out_proj.weight, gain=2**-1)


def log_gammas(heads: int, device: torch.device) -> Float[Tensor, " H"]:
    """ln γ of each head, in float64."""
    return torch.log1p(-(2.0 ** (-5 - torch.arange(heads, device=device, dtype=torch.float64))))


def row_sums(t: Int[Tensor, "B T"], log_decay: Float[Tensor, " H"]) -> Float[Tensor, "B H T"]:
    """λ_t = (1 − γ^{t+1}) / (1 − γ)."""
    rate = log_decay[:, None]
    return torch.expm1(rate * (t[:, None] + 1)) / torch.expm1(rate)


def angles(
    t: Int[Tensor, "#B T"], heads: int, K: int, dtype: torch.dtype, scale: float | Float[Tensor, "#B H T"]
) -> tuple[Float[Tensor, "#B T F/2"], Float[Tensor, "#B T F/2"]]:
    """scale · e^{i t θ} for each pair of features, in two parts, to turn features of `dtype`.

    Unlike RoPE's, θ reaches 1/10000 exactly.
    """
    theta = 10000 ** -torch.linspace(0, 1, K // 2, device=t.device, dtype=torch.float64)
    angle = t[:, None, :, None] * theta  # (B, 1, T, K/2)
    stretch = torch.as_tensor(scale, dtype=torch.float64, device=t.device).expand(len(t), heads, t.shape[1])[..., None]
    like = zeros_fp32(0, device=t.device, dtype=dtype)
    return merge_heads(stretch * angle.cos()).to(like), merge_heads(stretch * angle.sin()).to(like)


def turns(t: Int[Tensor, "B T"], heads: int, form: Form, K: int, dtype: torch.dtype) -> tuple[Turn, Turn]:
    """How queries and keys turn. λ scales queries, where the form has it."""
    scale = row_sums(t, log_gammas(heads, t.device)).rsqrt() if form == "recurrent" else 1.0
    return angles(t, heads, K, dtype, scale), angles(t, heads, K, dtype, K**-0.5)


@lru_cache(maxsize=4)
def first_turns(T: int, heads: int, form: Form, K: int, dtype: torch.dtype, device: torch.device) -> tuple[Turn, Turn]:
    """`turns` of the first T steps, which all layers and training steps share."""
    with torch.inference_mode(False):
        return turns(torch.arange(T, device=device)[None], heads, form, K, dtype)


@in_fp32
def in_parallel(
    q: Tensor, k: Tensor, v: Tensor, turn_q: Turn, turn_k: Turn, log_decay: Float[Tensor, " H"]
) -> Float[Tensor, "B H T V"]:
    """o of the official parallel form, from every pair of steps."""
    q, k, v = (split_heads(z, len(log_decay)) for z in (rotate(q, *turn_q), rotate(k, *turn_k), v))
    t = torch.arange(q.shape[2], device=q.device)
    back = (t[:, None] - t).clamp(min=0)
    decay = torch.exp(log_decay[:, None, None] * back).tril()
    scores = q @ k.transpose(-1, -2) * (decay / decay.sum(-1, keepdim=True).sqrt()).to(q.dtype)
    c = scores.detach().abs().sum(-1, keepdim=True).clamp(1, 5e4)
    return scores / c @ v

"""Linear attention (Katharopoulos et al. 2020, Transformers are RNNs, arXiv:2006.16236, sections 3.2 to 3.4).

    y_t = φ(q_t)ᵀ S_t / (φ(q_t)ᵀ z_t + ε),    S_t = Σ_{s ≤ t} φ(k_s) v_sᵀ,    z_t = Σ_{s ≤ t} φ(k_s)

with φ(x) = elu(x) + 1. Looking both ways, S and z sum over all steps. Official code: idiap/fast-transformers,
attention/attention_layer.py with causal_linear_attention.py or linear_attention.py; ε is theirs, the paper has none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.architectures import register
from zoo.contract import LayerContext, Mixer, State, Traits, Unsupported
from zoo.layers.initialisation import fan_in_, residual_scale
from zoo.layers.linear import Linear
from zoo.layers.multi_head import merge_heads, split_heads
from zoo.layers.positions import relative
from zoo.layers.positions.in_attention import no_steps, places
from zoo.ops import precision
from zoo.ops.elementwise import positive
from zoo.ops.linear_attention import linear_attention, weighted_mean


@register(
    family="efficient attention",
    paper="Katharopoulos et al. 2020, Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention, "
    "arXiv:2006.16236",
    source="https://github.com/idiap/fast-transformers (fast_transformers/attention: attention_layer.py, "
    "causal_linear_attention.py, linear_attention.py)",
    deviations=(
        "1e-6 is added to every normaliser, as in the official code; the paper has no ε",
        "residual type, GELU, positions and initialisation are pre_ln's; the official encoder is Post-LN with ReLU",
    ),
    positions="learned",
)
class LinearAttention(Mixer):
    """Transformer whose attention weighs by φ(q)·φ(k) with φ = elu + 1, which a state of fixed size sums up.

    State: `S` and `z`, in float32 at least.

    Args:
        d_keys, d_values: width of a head's keys and values; None for D / heads.
        eps: ε, positive.
    """

    traits = Traits(causal="strict", bidirectional=True, resumable=True)
    feeds_matmul_only = True
    relative = ("rotation",)

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        d_keys: int | None = None,
        d_values: int | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(context)
        if heads < 1 or ((d_keys is None or d_values is None) and context.width % heads):
            raise ValueError(f"linear_transformer: width {context.width} does not divide into {heads} heads")
        d_keys = context.width // heads if d_keys is None else d_keys
        d_values = context.width // heads if d_values is None else d_values
        if min(d_keys, d_values) < 1:
            raise ValueError(f"linear_transformer: d_keys {d_keys} and d_values {d_values} must be at least 1")
        if eps <= 0:
            raise ValueError(f"linear_transformer: eps must be positive, got {eps}; φ can be 0 in every feature")
        self.heads, self.causal, self.eps, self.placed = heads, context.causal, eps, context.positions
        self.positions = relative(context.positions, heads=heads, head_width=d_keys, causal=context.causal)
        self.query_projection = Linear(context.width, heads * d_keys)
        self.key_projection = Linear(context.width, heads * d_keys)
        self.value_projection = Linear(context.width, heads * d_values)
        self.out_projection = Linear(heads * d_values, context.width)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        x = x if mask is None else x.masked_fill(~mask[..., None], 0)
        q, k, v = positive(self.query_projection(x)), positive(self.key_projection(x)), self.value_projection(x)
        q, k, v = (split_heads(z, self.heads) for z in (q, k, v))
        if self.placed is None and self.causal:
            k = k if mask is None else k.masked_fill(~mask[:, None, :, None], 0)
            y, S, z = weighted_mean(q, k, v, self.eps, *((None, None) if state is None else (state["S"], state["z"])))
            new = None if state is None else {"S": S, "z": z}
            return self.out_projection(merge_heads(y).to(x.dtype)), new
        if self.placed is None:
            y, total, new = weighted_sums(q, k, v, causal=self.causal, mask=mask, state=state)
        else:
            with precision.no_autocast(x.device):
                q, k, v = (precision.at_least_fp32(z) for z in (q, k, v))
                y, total, new = self._turned(q, k, v, mask, state)
        y = y * (precision.at_least_fp32(total) + self.eps).reciprocal().to(y.dtype)
        return self.out_projection(merge_heads(y.to(x.dtype))), new

    def _turned(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, state: State | None
    ) -> tuple[Tensor, Tensor, State | None]:
        """Rotations turn φ(q) and φ(k) in the sum over values only, so that the normaliser stays positive (RoFormer,
        arXiv:2104.09864, eq. 19)."""
        now, steps = places(state, q.shape[2], mask, q.device)
        turned = self.positions.rotate_both(q, k, now)
        y, _, new = weighted_sums(*turned, v, causal=self.causal, mask=mask, state=state)
        k = k if mask is None else k.masked_fill(~mask[:, None, :, None], 0)
        z = k.cumsum(2) if self.causal else k.sum(2, keepdim=True)
        if state is not None:
            z = z + state["z"][:, :, None]
        return y, (q * z).sum(-1, keepdim=True), None if new is None else {**new, "z": z[:, :, -1], **steps}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        K, V = (p.out_features // self.heads for p in (self.key_projection, self.value_projection))
        sums = zero_sums(batch, self.heads, K, V, device=device, dtype=dtype)
        return {**sums, **no_steps(batch, self.placed, device)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 1/fan_in), the projection into the residual stream scaled by 1/√(2·depth); biases zero."""
        for projection in (self.query_projection, self.key_projection, self.value_projection):
            fan_in_(projection)
        fan_in_(self.out_projection, residual_scale(depth))


def weighted_sums(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    *,
    causal: bool,
    mask: Bool[Tensor, "B T"] | None,
    state: State | None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H T 1"], State | None]:
    """qᵀS, qᵀz and, given a state, the next one. Masked steps add nothing to S and z.

    z is the last column of S, behind a value of 1 at every step.

    Raises:
        Unsupported: a state where `causal` is false.
    """
    k = k if mask is None else k.masked_fill(~mask[:, None, :, None], 0)
    v, new = F.pad(v, (0, 1), value=1.0), None
    if not causal:
        if state is not None:
            raise Unsupported("linear attention that looks both ways cannot continue from a state")
        with precision.no_autocast(q.device):  # sums over all steps: not in half precision
            y = precision.at_least_fp32(q) @ (precision.at_least_fp32(k).transpose(-1, -2) @ precision.at_least_fp32(v))
    elif state is None:
        y, _ = linear_attention(q, k, v)
    else:
        y, S = linear_attention(q, k, v, state=torch.cat([state["S"], state["z"][..., None]], dim=-1))
        new = {"S": S[..., :-1], "z": S[..., -1]}
    return y[..., :-1], y[..., -1:], new


def zero_sums(batch: int, heads: int, K: int, V: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
    """S (B, H, K, V) and z (B, H, K) before the first step, in float32 at least."""
    S = torch.zeros(batch, heads, K, V, device=device, dtype=torch.promote_types(dtype, torch.float32))
    return {"S": S, "z": S[..., 0].clone()}

"""Linear attention (Katharopoulos et al. 2020, Transformers are RNNs, arXiv:2006.16236, sections 3.2 to 3.4).

    y_t = φ(q_t)ᵀ S_t / (φ(q_t)ᵀ z_t + ε),    S_t = Σ_{s ≤ t} φ(k_s) v_sᵀ,    z_t = Σ_{s ≤ t} φ(k_s)

with φ(x) = elu(x) + 1. Looking both ways, S and z sum over all steps. ε is the official code's, the paper has none.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, State, Traits
from zoo.layers.linear import Linear, branch_
from zoo.layers.multi_head import MultiHead
from zoo.layers.positions.in_attention import no_steps, places
from zoo.layers.ranges import head_width, positive
from zoo.layers.tensors import in_fp32, merge_heads, split_heads, zero_padding
from zoo.layers.weighted_sums import normalised, sums_of_keys, weighted_sums, zero_sums
from zoo.ops.elementwise import positive as elu_plus_one
from zoo.ops.linear_attention import weighted_mean


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
class LinearAttention(MultiHead):
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
        super().__init__(context, "linear_transformer", heads, d_keys, "d_keys")
        d_keys, d_values = self.head_width, head_width("linear_transformer", context.width, heads, d_values, "d_values")
        positive("linear_transformer", eps=eps)  # φ can be 0 in every feature
        self.eps, self.placed = eps, context.positions
        self.query_projection = Linear(context.width, heads * d_keys)
        self.key_projection = Linear(context.width, heads * d_keys)
        self.value_projection = Linear(context.width, heads * d_values)
        self.out_projection = Linear(heads * d_values, context.width)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        q, k = elu_plus_one(self.query_projection(x)), elu_plus_one(self.key_projection(x))
        q, k, v = (split_heads(z, self.heads) for z in (q, k, self.value_projection(x)))
        if self.placed is None and self.causal:
            before = (None, None) if state is None else (state["S"], state["z"])
            y, S, z = weighted_mean(q, zero_padding(k, mask, 2), v, self.eps, *before)
            return self.out_projection(merge_heads(y).to(x.dtype)), None if state is None else {"S": S, "z": z}
        sums = weighted_sums if self.placed is None else self._turned
        y, total, new = sums(q, k, v, causal=self.causal, mask=mask, state=state)
        return self.out_projection(merge_heads(normalised(y, total, self.eps).to(x.dtype))), new

    @in_fp32
    def _turned(
        self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, mask: Mask | None, state: State | None
    ) -> tuple[Tensor, Tensor, State | None]:
        """As `weighted_sums`, but that rotations turn φ(q) and φ(k) in the sum over values, and there only: the
        normaliser stays positive (RoFormer, arXiv:2104.09864, eq. 19)."""
        now, steps = places(state, q.shape[2], mask, q.device)
        y, _, new = weighted_sums(*self.positions.rotate_both(q, k, now), v, causal=causal, mask=mask, state=state)
        total, z = sums_of_keys(q, zero_padding(k, mask, 2), None if state is None else state["z"], causal)
        return y, total, None if new is None else {**new, "z": z, **steps}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        K, V = (p.out_features // self.heads for p in (self.key_projection, self.value_projection))
        sums = zero_sums(batch, self.heads, K, V, device=device, dtype=dtype)
        return {**sums, **no_steps(batch, self.placed, device)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        into = self.query_projection, self.key_projection, self.value_projection
        branch_(*into, out=self.out_projection, depth=depth)

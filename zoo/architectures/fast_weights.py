"""Fast weights programmed by a slow network (Schlag, Irie and Schmidhuber 2021, arXiv:2102.11174).

The slow network gives each step a key, a value, a query and a strength β_t = σ(·) (section 4); the fast weights S then
learn to map φ(k_t) to v_t, by an outer product (Schmidhuber 1991, 1992; also linear attention) or by the delta rule:

    sum      S_t = S_{t−1} + φ(k_t) v_tᵀ
    delta    S_t = S_{t−1} + β_t φ(k_t) (v_t − S_{t−1}ᵀ φ(k_t))ᵀ
    y_t = W_o S_tᵀ φ(q_t) / √d

With `attention_norm`, S_tᵀ φ(q_t) is divided by Σ_{s≤t} φ(k_s)·φ(q_t) + ε. φ is made to sum to 1 (section 4.2, "sum
normalisation"), without which S grows without bound under the delta rule:

    elu      φ(x) = elu(x) + 1                               (Katharopoulos et al. 2020)
    relu     φ(x) = max(x, 0)
    dpfp     φ(x)_{iν} = r_i r_{i−ν},  r = relu([x, −x]),  ν = 1 … nu, indices cyclic              (section 5, "DPFP")

The official attn_type 24 is elu with delta, the default here; 26 dpfp with delta, 34 elu with sum, 36 dpfp with sum.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State, Traits
from zoo.deviations import INITIAL_WEIGHTS
from zoo.layers.linear import branch_
from zoo.layers.multi_head import MultiHead
from zoo.layers.tensors import in_fp32, merge_heads, zero_padding, zeros_fp32
from zoo.layers.weighted_sums import sums_of_keys
from zoo.ops.delta_rule import delta_rule
from zoo.ops.linear_attention import linear_attention
from zoo.ops.norms import SMALLEST_SUM, simplex


@register(
    family="fast weights and matrix states",
    paper="Schlag, Irie, Schmidhuber 2021, Linear Transformers Are Secretly Fast Weight Programmers, arXiv:2102.11174",
    source="https://github.com/IDSIA/lmtool-fwp (src/utils/cuda_fast_weight_layer.py, src/mem_transformer.py)",
    deviations=(
        "the official pre-norm layer adds its output to the normed input, LN(x) + f(LN(x)); ours is x + f(LN(x)), as "
        "in the authors' later IDSIA/recurrent-fwp",
        "parameters are called slow_net and out_linear, as in recurrent-fwp; their rows are those of lmtool-fwp's "
        "qkvb_net (qkv_net for the sum rule) and o_net",
        "φ(x) is divided by its sum or 1e-6, whichever is larger; the official code divides 0 by 0 where φ vanishes",
        "attention_norm divides outputs only; the official variants that also divide what a key retrieves (attn_type "
        "44 to 46) and FAVOR+ as φ (25, 35) are not offered",
        "4 heads of width/4 and an MLP 4 times as wide, where the paper has 8 heads of width/8 and 16 times",
        "no positions (the official --no_pos): the recurrence needs none; the official default is sinusoidal",
        "nu is 2 by default, as in the official layer; the official model has 3",
        INITIAL_WEIGHTS,
    ),
    channel=Part("mlp", activation="relu"),
)
class FastWeights(MultiHead):
    """Fast weight programmer: a slow network writes into a matrix, by outer products or (default) the delta rule.

    State: `S` (B, H, K, d), and with `attention_norm` `z` = Σ φ(k) (B, H, K); float32 at least.

    Args:
        rule: "delta" or "sum". feature_map: φ. nu: ν of DPFP; K = 2 d ν there, and d otherwise.
        d_head: d, the width of a head; None for width / heads.
        attention_norm: None for yes with "sum" and no with "delta", the official choices.
        eps: ε of the attention norm.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        d_head: int | None = None,
        rule: Literal["sum", "delta"] = "delta",
        feature_map: Literal["elu", "relu", "dpfp"] = "elu",
        nu: int = 2,
        attention_norm: bool | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(context, "fast_weights", heads, d_head, "d_head")
        d = self.head_width
        if nu < 1 or (feature_map == "dpfp" and nu >= 2 * d):
            raise ValueError(f"fast_weights: nu {nu} is not between 1 and {2 * d - 1}, twice the head width less one")
        self.rule, self.feature_map, self.nu = rule, feature_map, nu
        self.K, self.eps = 2 * d * nu if feature_map == "dpfp" else d, eps
        self.attention_norm = rule == "sum" if attention_norm is None else attention_norm
        self.sizes = [d, d, d, 1] if rule == "delta" else [d, d, d]
        self.slow_net = nn.Linear(context.width, heads * sum(self.sizes), bias=False)
        self.out_linear = nn.Linear(heads * d, context.width, bias=False)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        programme = self.slow_net(x).unflatten(-1, (self.heads, -1))  # (B, T, H, 3d or 3d + 1)
        q, k, v, *strength = programme.split(self.sizes, dim=-1)
        q, k, v = (z.transpose(1, 2) for z in (self.features(q), self.features(k), v))
        k, S = zero_padding(k, mask, 2), None if state is None else state["S"]
        if self.rule == "delta":
            beta = in_fp32(torch.sigmoid)(strength[0]).squeeze(-1).transpose(1, 2)
            y, S = delta_rule(q, k, v, beta, state=S)
        else:
            y, S = linear_attention(q, k, v, state=S)
        y, new = self.head_width**-0.5 * y, {"S": S}
        if self.attention_norm:
            total, new["z"] = sums_of_keys(q, k, None if state is None else state["z"])
            y = y / (total + self.eps)
        return self.out_linear(merge_heads(y.to(x.dtype))), None if state is None else new

    def features(self, x: Float[Tensor, "*N d"]) -> Float[Tensor, "*N K"]:
        """φ(x) ≥ 0 in x's dtype, computed in float32 at least."""
        return simplex(x) if self.feature_map == "elu" else self._features(x).to(x.dtype)

    @in_fp32
    def _features(self, x: Float[Tensor, "*N d"]) -> Float[Tensor, "*N K"]:
        if self.feature_map == "relu":
            phi = F.relu(x)
        else:
            r = F.relu(torch.cat([x, -x], dim=-1))
            phi = torch.cat([r * r.roll(shift, dims=-1) for shift in range(1, self.nu + 1)], dim=-1)
        return phi / phi.sum(-1, keepdim=True).clamp(min=SMALLEST_SUM)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        S = zeros_fp32(batch, self.heads, self.K, self.head_width, device=device, dtype=dtype)
        return {"S": S, "z": S.new_zeros(batch, self.heads, self.K)} if self.attention_norm else {"S": S}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_`; with DeepNorm the values' part of the slow network is scaled too."""
        branch_(self.slow_net, out=self.out_linear, depth=depth, gain=self.gain)
        if self.gain is not None:
            d = self.head_width
            values = self.slow_net.weight.unflatten(0, (self.heads, -1))[:, 2 * d : 3 * d]
            nn.init.normal_(values, std=self.gain * self.slow_net.in_features**-0.5)

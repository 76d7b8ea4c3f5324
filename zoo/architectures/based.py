"""Based (Arora et al. 2024, arXiv:2402.18668, sections 4.1 and 5.2): Taylor linear attention, and gated convolutions.

    y_t = Σ_{s ≤ t} w_{t,s} v_s / (Σ_{s ≤ t} w_{t,s} + ε)
    w_{t,s} = φ(q_t)·φ(k_s) = 1 + q_t·k_s / √d + (q_t·k_s)² / 2d ≈ e^{q_t·k_s / √d}

with d the width of q and k, a few features of each head. The third kind of layer, attention in a sliding window, is
`zoo.layers.local_attention`.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, Part, Recipe, State, Traits
from zoo.layers.linear import branch_, fan_in_, residual_scale
from zoo.layers.local_attention import LocalAttention
from zoo.layers.multi_head import MultiHead
from zoo.layers.ranges import at_least_one
from zoo.layers.short_convolution import ShortConvolution
from zoo.layers.tensors import in_fp32, merge_heads, split_heads, zero_padding
from zoo.layers.weighted_sums import normalised, weighted_sums, zero_sums


class Based(MultiHead):
    """Taylor linear attention, causal or bidirectional. State: `S` and `z` of linear attention, in float32 at least.

    Args:
        feature_dim: d. head_dim: width of a head's values; None for D / heads. eps: ε.
    """

    traits = Traits(causal="strict", bidirectional=True, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        feature_dim: int = 16,
        head_dim: int | None = None,
        eps: float = 1e-12,
    ) -> None:
        super().__init__(context, "based", heads, head_dim)
        at_least_one("based", feature_dim=feature_dim)
        if eps < 0:
            raise ValueError(f"based: eps must not be negative, got {eps}")
        self.feature_dim, self.eps, values = feature_dim, eps, heads * self.head_width
        self.q_proj = nn.Linear(context.width, heads * feature_dim, bias=False)
        self.k_proj = nn.Linear(context.width, heads * feature_dim, bias=False)
        self.v_proj = nn.Linear(context.width, values, bias=False)
        self.o_proj = nn.Linear(values, context.width, bias=False)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        q, k, v = (split_heads(project(x), self.heads) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k = (in_fp32(taylor)(z).to(v.dtype) for z in (q, k))
        y, total, new = weighted_sums(q, k, v, causal=self.causal, mask=mask, state=state)
        # Every weight is (1 + (1 + q·k/√d)²) / 2 ≥ ½, unless rounding of large q and k says otherwise.
        return self.o_proj(merge_heads(normalised(y, total, self.eps, least=0.5).to(x.dtype))), new

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        d = self.feature_dim
        return zero_sums(batch, self.heads, 1 + d + d * (d + 1) // 2, self.head_width, device=device, dtype=dtype)

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        branch_(self.q_proj, self.k_proj, self.v_proj, out=self.o_proj, depth=depth)


def taylor(x: Float[Tensor, "*N d"]) -> Float[Tensor, "*N m"]:
    """φ: 1, x_i / d^¼, x_i² / √(2d), and x_i x_j / √d for i < j, where x ⊗ x / √(2d) would hold each of these twice."""
    d = x.shape[-1]
    i, j = torch.triu_indices(d, d, offset=1, device=x.device)
    one, squares, products = torch.ones_like(x[..., :1]), x.square() * (2 * d) ** -0.5, x[..., i] * x[..., j] * d**-0.5
    return torch.cat([one, x * d**-0.25, squares, products], dim=-1)


class BaseConv(Mixer):
    """Gated short convolution: y = W_o (SiLU(conv(u)) ⊙ g) + b_o with u, g = W_i x + b_i.

    State: `conv`, the last inputs of the convolution.

    Args:
        kernel_size: taps of the depthwise causal convolution. expand_proj: u and g together are this many times D wide.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(
        self,
        context: LayerContext,
        *,
        kernel_size: int = 3,
        expand_proj: int = 4,
        use_bias: bool = True,
        conv_bias: bool = False,
    ) -> None:
        super().__init__(context)
        at_least_one("base_conv", kernel_size=kernel_size)
        D = context.width
        if expand_proj < 1 or expand_proj * D % 2:
            raise ValueError(f"base_conv: expand_proj {expand_proj} times width {D} does not split into two halves")
        inner = expand_proj * D // 2
        self.in_proj = nn.Linear(D, 2 * inner, bias=use_bias)
        self.conv1 = ShortConvolution(inner, kernel_size, bias=conv_bias)
        self.out_proj = nn.Linear(inner, D, bias=use_bias)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        u, g = self.in_proj(x).chunk(2, dim=-1)
        u, last = self.conv1(u, mask=mask, state=None if state is None else state["conv"])
        return self.out_proj((u * g).to(x.dtype)), None if state is None else {"conv": last}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {"conv": self.conv1.init_state(batch, device=device, dtype=dtype)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_`; the convolution keeps PyTorch's, U ±1/√kernel_size."""
        fan_in_(self.in_proj)
        self.conv1.reset_parameters()
        fan_in_(self.out_proj, residual_scale(depth))


@register(
    family="fast weights and matrix states",
    paper="Arora et al. 2024, Simple Linear Attention Language Models Balance the Recall-Throughput Tradeoff, "
    "arXiv:2402.18668",
    source="https://github.com/HazyResearch/based (based/models/mixers, "
    "train/configs/experiment/reference/based-360m.yaml); fla/layers/based.py",
    deviations=(
        "layers repeat the official 360M model's order of five: gated convolution, Taylor attention, window, two more "
        "gated convolutions. The official 27 layers are five such rounds and two convolutions",
        "φ holds a product of two features once, scaled, as in fla; HazyResearch's holds it twice, which is equal",
        "fla's BasedLinearAttention splits q and k into heads as wide as the values; we follow its forward_reference",
        "the normaliser is at least ½, which only rounding could break",
        "a window of 64 steps, itself included; the official window_size of 128 looks 64 back. Nothing rotates in it, "
        "as in the official configuration: the convolutions tell order",
        "4 heads by default, where the official code has 12 or 16; weights start at N(0, 1/fan_in), not N(0, 0.02)",
    ),
)
def based(*, heads: int = 4, feature_dim: int = 16, window: int | None = None, kernel_size: int = 3) -> Recipe:
    """Based: Taylor linear attention over everything, softmax in a small window, and gated short convolutions."""
    convolution = Part(BaseConv, kernel_size=kernel_size)
    attention = Part(Based, heads=heads, feature_dim=feature_dim)
    local = Part(LocalAttention, heads=heads, window=window)
    return Recipe(
        mixer=(convolution, attention, local, convolution, convolution),
        channel=Part("glu", activation="silu", expand=2.0),
        norm="rms",
        depth=5,
    )

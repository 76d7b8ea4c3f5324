"""Lightning attention, the linear attention of MiniMax-01 (MiniMax 2025, arXiv:2501.08313, section 2.2).

    q, k, v = SiLU(x W_qkv),    ln a = −2^{−8h/H} (1 − l / (L − 1 + ε) + ε),    ε = 10⁻⁵
    S_t = a S_{t−1} + k_t v_tᵀ,    y_t = (RMSNorm(S_tᵀ q_t) ⊙ σ(x_t W_g)) W_out

per head h = 1 … H of layer l = 0 … L − 1, with the norm over all heads: TransNormerLLM's fixed decays, as slow as ALiBi
is weak, and almost none in the last layer (Qin et al. 2024, arXiv:2405.17381). No scale, no rotations.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, Part, State, Traits
from zoo.layers.linear import branch_
from zoo.layers.norms import RMSNorm
from zoo.layers.ranges import head_width, positive
from zoo.layers.tensors import merge_heads, split_heads, zero_padding, zeros_fp32
from zoo.ops.linear_attention import linear_attention
from zoo.ops.precision import promote


@register(
    family="fast weights and matrix states",
    paper="MiniMax et al. 2025, MiniMax-01: Scaling Foundation Models with Lightning Attention, arXiv:2501.08313",
    source="https://github.com/huggingface/transformers (models/minimax, MiniMaxLightningAttention); "
    "https://github.com/MiniMax-AI/MiniMax-01",
    deviations=(
        "every layer is lightning attention; MiniMax-01 has softmax attention in every eighth",
        "Pre-LN blocks with a SwiGLU; MiniMax-01 has a mixture of experts, and its residuals carry normed, scaled sums",
        "4 heads; MiniMax-01 has 64 of 128 features each",
        "weights start at N(0, 1/fan_in), the projection into the residual stream at 1/√(2·depth) of it",
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class LightningAttention(Mixer):
    """Lightning attention: linear attention with a fixed decay for each head and layer, a norm and a sigmoid gate.

    State: `S` (B, H, head_dim, head_dim) in float32 at least.

    Args:
        head_dim: features of a head; None for D / H. norm_eps: ε of the norm.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self, context: LayerContext, *, heads: int = 4, head_dim: int | None = None, norm_eps: float = 1e-6
    ) -> None:
        super().__init__(context)
        positive("lightning_attention", norm_eps=norm_eps)
        self.heads, self.head_dim = heads, head_width("lightning_attention", context.width, heads, head_dim)
        self.slowness = 1 - context.layer / (context.depth - 1 + 1e-5) + 1e-5
        inner = heads * self.head_dim
        self.qkv_proj = nn.Linear(context.width, 3 * inner, bias=False)
        self.output_gate = nn.Linear(context.width, inner, bias=False)
        self.norm = RMSNorm(inner, norm_eps)
        self.out_proj = nn.Linear(inner, context.width, bias=False)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        q, k, v = split_heads(F.silu(self.qkv_proj(x)), self.heads).chunk(3, dim=-1)
        o, S = linear_attention(q, k, v, self.log_decay(x, mask), None if state is None else state["S"])
        y = self.norm(merge_heads(o)) * self.output_gate(x).sigmoid()
        return self.out_proj(y.to(x.dtype)), None if state is None else {"S": S}

    def log_decay(self, x: Float[Tensor, "B T D"], mask: Mask | None = None) -> Float[Tensor, "#B H T"]:
        """ln a, the same at every step but the masked ones."""
        h = torch.arange(1, self.heads + 1, device=x.device, dtype=promote(x))
        every = (-self.slowness * 2 ** (-8 * h / self.heads))[None, :, None].expand(1, -1, x.shape[1])
        return zero_padding(every, mask, 2)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {"S": zeros_fp32(batch, self.heads, self.head_dim, self.head_dim, device=device, dtype=dtype)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 1/fan_in), W_out scaled by 1/√(2·depth); norm weights one."""
        branch_(self.qkv_proj, self.output_gate, out=self.out_proj, depth=depth)
        self.norm.reset_parameters()

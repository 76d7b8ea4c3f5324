"""RWKV-6, "Finch" (Peng et al. 2024, arXiv:2404.05892, section 4).

RWKV-5 with a token shift and a decay that follow the data. With x' = x_{t−1} − x_t, for each c of w, k, v, r, g:

    m_c = tanh((x + x' ⊙ μ_x) A_c) B_c,    x^c = x + x' ⊙ (μ_c + m_c)
    r, k, v, g = x^r W_r, x^k W_k, x^v W_v, silu(x^g W_g),    w_t = exp(−exp(ω + tanh(x^w A_d) B_d))
    y_t = r_tᵀ (S_{t−1} + diag(u) k_t v_tᵀ),    S_t = diag(w_t) S_{t−1} + k_t v_tᵀ
    out = (GroupNorm(y) ⊙ g) W_o

with u = time_faaaa and ω = time_decay. The mixing vectors μ (time_maa_*) weigh the previous input, where those of
RWKV-4 and 5 weigh the present one.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Part, Recipe
from zoo.layers.ranges import at_least_one
from zoo.layers.rwkv import ChannelMixing, MatrixTimeMixing
from zoo.layers.tensors import in_fp32, split_heads

SLOTS = ("w", "k", "v", "r", "g")
"""The order in which A and B hold the five mixes."""


class TimeMix(MatrixTimeMixing):
    """Time mixing with a decay that follows the data. State and other arguments: see `MatrixTimeMixing`.

    Args:
        mix_lora, decay_lora: the ranks of the token shift's A_c B_c and of the decay's A_d B_d.
    """

    def __init__(
        self,
        context: LayerContext,
        *,
        head_size: int = 32,
        dim_att: int | None = None,
        mix_lora: int = 32,
        decay_lora: int = 64,
        head_size_divisor: float = 8.0,
    ) -> None:
        super().__init__(context, head_size=head_size, dim_att=dim_att, head_size_divisor=head_size_divisor)
        at_least_one("rwkv6", mix_lora=mix_lora, decay_lora=decay_lora)
        C, A = context.width, self.output.in_features
        for c in ("x", *SLOTS):
            self.register_parameter(f"time_maa_{c}", nn.Parameter(torch.empty(1, 1, C)))
        self.time_maa_w1 = nn.Parameter(torch.empty(C, 5 * mix_lora))
        self.time_maa_w2 = nn.Parameter(torch.empty(5, mix_lora, C))
        self.time_decay = nn.Parameter(torch.empty(1, 1, A))
        self.time_decay_w1 = nn.Parameter(torch.empty(C, decay_lora))
        self.time_decay_w2 = nn.Parameter(torch.empty(decay_lora, A))
        self.reset_parameters(layer=context.layer, depth=context.depth)

    time_maa_x: nn.Parameter

    @in_fp32
    def log_decay(self, xw: Float[Tensor, "B T D"]) -> Float[Tensor, "B H T N"]:
        low = torch.tanh(xw @ self.time_decay_w1) @ self.time_decay_w2
        return -torch.exp(split_heads(self.time_decay + low, self.heads))

    def mixed(self, x: Float[Tensor, "B T D"], previous: Float[Tensor, "B T D"]) -> list[Float[Tensor, "B T D"]]:
        change = previous - x  # x'
        low = torch.tanh((x + change * self.time_maa_x.to(x.dtype)) @ self.time_maa_w1)
        m = torch.einsum("btcd,cdn->cbtn", low.unflatten(-1, (5, -1)), self.time_maa_w2.to(low.dtype))
        mu = [getattr(self, f"time_maa_{c}") for c in SLOTS]
        return [x + change * (mu_c.to(x.dtype) + m_c) for mu_c, m_c in zip(mu, m, strict=True)]

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `MatrixTimeMixing`; μ is 1 − RWKV-5's; the first low-rank factors are zero, the second U(−0.01, 0.01)."""
        super().reset_parameters(layer=layer, depth=depth)
        up, down = layer / max(depth - 1, 1), 1 - layer / depth  # 0 to 1, and 1 to almost 0
        for c in ("x", *SLOTS):
            mu = getattr(self, f"time_maa_{c}")
            ramp = torch.arange(mu.shape[-1], device=mu.device) / mu.shape[-1]
            mu.copy_(1 - ramp ** (0.5 * down if c in "rg" else down) - (0.3 * up if c == "v" else 0))
        for first, second in ((self.time_maa_w1, self.time_maa_w2), (self.time_decay_w1, self.time_decay_w2)):
            nn.init.zeros_(first)
            nn.init.uniform_(second, -0.01, 0.01)


class ChannelMix(ChannelMixing):
    """Channel mixing of RWKV-5, whose mixing vectors weigh the previous input."""

    mixes = ("time_maa_k", "time_maa_r")
    axes = (1, 1)
    weighs_previous = True


@register(
    options=TimeMix,
    family="RWKV",
    paper="Peng et al. 2024, Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence, "
    "arXiv:2404.05892, section 4",
    source="https://github.com/BlinkDL/RWKV-LM (RWKV-v5/src/model.py, x060; RWKV-v5/cuda/wkv6_cuda.cu)",
    deviations=(
        "heads of 32 channels, where the official code has 64: narrow models then still have several",
        "channel mixing is 3.5 D wide inside, rounded to the nearest whole number; officially down to a multiple of 32",
        "the decay's low-rank part is computed in float32 under autocast too, officially in bfloat16",
        "the variants x060a (low-rank gate) and x060b (no gate) are not offered",
        "no L2Wrap (a pull of the largest logit to zero that the official code adds to the gradient)",
        "at depth 1 the ramps over depth take layer 0's values, where the official code divides by zero",
    ),
)
def rwkv6(*, expand: float = 3.5, **options: object) -> Recipe:
    """RWKV-6, Finch: RWKV-5 with a token shift and a decay that follow the data."""
    return Recipe(
        Part(TimeMix, **options),
        channel=Part(ChannelMix, expand=expand),
        residual="pre",
        embedding="rwkv5",
        head="rwkv4",
    )

"""RWKV-5.2, "Eagle" (Peng et al. 2024, arXiv:2404.05892, section 4).

Both sublayers first mix each input with the one before it (the token shift), x^μ_t = μ ⊙ x_t + (1 − μ) ⊙ x_{t−1}. Time
mixing then keeps a matrix S for every head of N channels, which forgets by a constant w per channel:

    r, k, v, g = x^{μr} W_r, x^{μk} W_k, x^{μv} W_v, silu(x^{μg} W_g)
    y_t = r_tᵀ (S_{t−1} + diag(u) k_t v_tᵀ),    S_t = diag(w) S_{t−1} + k_t v_tᵀ,    w = exp(−exp(ω))
    out = (GroupNorm(y) ⊙ g) W_o

with u = time_faaaa and ω = time_decay. Channel mixing is that of RWKV-4, 3.5 times as wide inside:

    r, k = x^{μr} W_r, x^{μk} W_k,    out = σ(r) ⊙ (max(k, 0)² W_v)
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Part, Recipe
from zoo.layers.rwkv import ChannelMixing, MatrixTimeMixing
from zoo.layers.tensors import in_fp32


class TimeMix(MatrixTimeMixing):
    """Time mixing with a constant decay. State and arguments: see `MatrixTimeMixing`."""

    def __init__(
        self, context: LayerContext, *, head_size: int = 32, dim_att: int | None = None, head_size_divisor: float = 8.0
    ) -> None:
        super().__init__(context, head_size=head_size, dim_att=dim_att, head_size_divisor=head_size_divisor)
        for c in "kvrg":
            self.register_parameter(f"time_mix_{c}", nn.Parameter(torch.empty(1, 1, context.width)))
        self.time_decay = nn.Parameter(torch.empty(self.heads, head_size))
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def mixed(self, x: Float[Tensor, "B T D"], previous: Float[Tensor, "B T D"]) -> list[Float[Tensor, "B T D"]]:
        return [x, *(torch.lerp(previous, x, getattr(self, f"time_mix_{c}").to(x.dtype)) for c in "kvrg")]

    def log_decay(self, xw: Float[Tensor, "B T D"]) -> Float[Tensor, "1 H T N"]:
        return -in_fp32(torch.exp)(self.time_decay)[None, :, None].expand(-1, -1, xw.shape[1], -1)

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `MatrixTimeMixing`; the mixing vectors are ramps too."""
        super().reset_parameters(layer=layer, depth=depth)
        up, down = layer / max(depth - 1, 1), 1 - layer / depth  # 0 to 1, and 1 to almost 0
        for c in "kvrg":
            mix = getattr(self, f"time_mix_{c}")
            ramp = torch.arange(mix.shape[-1], device=mix.device) / mix.shape[-1]
            mix.copy_(ramp ** (0.5 * down if c in "rg" else down) + (0.3 * up if c == "v" else 0))


class ChannelMix(ChannelMixing):
    """Channel mixing of RWKV-4; W_k starts orthogonal (`generate_init_weight`)."""

    axes = (1, 1)


@register(
    options=TimeMix,
    family="RWKV",
    paper="Peng et al. 2024, Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence, "
    "arXiv:2404.05892, section 4",
    source="https://github.com/BlinkDL/RWKV-LM (RWKV-v5/src/model.py, x052; RWKV-v5/cuda/wkv5_cuda.cu)",
    deviations=(
        "heads of 32 channels, where the official code has 64: narrow models then still have several",
        "channel mixing is 3.5 D wide inside, rounded to the nearest whole number; officially down to a multiple of 32",
        "where paper and official code differ we follow the code, RWKV-5.2, whose mixing vectors start as ramps",
        "no optional tiny attention, no learned 2-D positions",
        "no L2Wrap (a pull of the largest logit to zero that the official code adds to the gradient)",
        "at depth 1 the ramps over depth take layer 0's values, where the official code divides by zero",
    ),
)
def rwkv5(*, expand: float = 3.5, **options: object) -> Recipe:
    """RWKV-5.2, Eagle: RWKV-4 with a matrix state for each head, a gate and a norm over heads."""
    return Recipe(
        Part(TimeMix, **options),
        channel=Part(ChannelMix, expand=expand),
        residual="pre",
        embedding="rwkv5",
        head="rwkv4",
    )

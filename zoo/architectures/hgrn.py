"""HGRN: a gated linear recurrence whose upper layers forget more slowly (Qin et al. 2023, arXiv:2311.04823, section 3).

    f_t = b + (1 − b) ⊙ σ(x_t W_f),    b = Σ_{0 < j ≤ l} softmax_j(γ)
    h_t = f_t ⊙ h_{t−1} + (1 − f_t) ⊙ SiLU(x_t W_i),    y_t = (RMSNorm(h_t) ⊙ SiLU(x_t W_g)) W_o

The bound b of layer l is a sum over the layers below, by the softmax over layers of γ, `lower_bounds`; the lowest layer
has none.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State, Traits
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH
from zoo.layers.lower_bound import forget_gate
from zoo.layers.norms import HeadNorm
from zoo.layers.projections import ProjectedMixer
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.tensors import in_fp32, zero_padding, zeros_fp32
from zoo.ops.diagonal_scan import scan


@register(
    family="recurrent",
    paper="Qin, Yang and Zhong 2023, Hierarchically Gated Recurrent Neural Network for Sequence Modeling, "
    "arXiv:2311.04823",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/hgrn.py, fla/models/hgrn)",
    deviations=(
        "the state is real, as in the official code; the paper's turns by a fixed angle per channel at every step",
        "the output gate is SiLU(x W_g) behind an RMSNorm, as in the official code",
        "each layer but the lowest has a copy of γ to itself, the official model one for all; they start equal, at 0",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class HGRN(ProjectedMixer):
    """HGRN: an elementwise recurrence whose forget gate is bounded from below, more so further up; output gate.

    State: `h` (B, expand_ratio · D) in float32 at least, and the last inputs (B, channels, conv_size − 1) of
    convolutions.

    Args:
        expand_ratio: the width of the recurrence, relative to D.
        use_lower_bound: b; without it f = σ(x W_f) in every layer.
        use_short_conv, conv_size, conv_bias: a depthwise causal convolution over i and f each, before SiLU and σ.
        norm_eps: ε of the norm.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        expand_ratio: float = 1.0,
        use_lower_bound: bool = True,
        use_short_conv: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(context)
        D, self.units, self.layer = context.width, int(expand_ratio * context.width), context.layer
        if self.units < 1:
            raise ValueError(f"hgrn: expand_ratio {expand_ratio} leaves no unit at width {D}")
        at_least_one("hgrn", conv_size=conv_size)
        positive("hgrn", norm_eps=norm_eps)
        widths = {"i": self.units, "f": self.units}
        self.add_projections(D, widths, conv_size if use_short_conv else None, bias=conv_bias, activation=None)
        bounded = use_lower_bound and context.layer > 0
        self.lower_bounds = nn.Parameter(torch.zeros(context.depth, self.units)) if bounded else None
        self.g_proj = nn.Linear(D, self.units, bias=False)
        self.g_norm = HeadNorm(self.units, norm_eps)
        self.o_proj = nn.Linear(self.units, D, bias=False)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        (i, f), new = self.project(x, mask, state)
        h = self._scan(i, f, mask, None if state is None else state["h"])
        new["h"] = h[:, -1]
        return self.o_proj(self.g_norm(h, self.g_proj(x)).to(x.dtype)), None if state is None else new

    @in_fp32
    def _scan(
        self, i: Float[Tensor, "B T U"], f: Float[Tensor, "B T U"], mask: Mask | None, h0: Tensor | None
    ) -> Float[Tensor, "B T U"]:
        """h_t from what two of the linear layers give. A masked step neither forgets nor adds."""
        log_f, rest = (zero_padding(z, mask) for z in forget_gate(f, self.lower_bounds, self.layer))
        return scan(log_f.exp(), rest * F.silu(i), h0)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        h = zeros_fp32(batch, self.units, device=device, dtype=dtype)
        return {"h": h, **super().init_state(batch, device=device, dtype=dtype)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """γ = 0: b = l/L; for all else see `ProjectedMixer`."""
        super().reset_parameters(layer=layer, depth=depth)
        if self.lower_bounds is not None:
            nn.init.zeros_(self.lower_bounds)

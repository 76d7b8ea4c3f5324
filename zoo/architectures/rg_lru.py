"""Griffin's recurrent block with the RG-LRU (De et al. 2024, arXiv:2402.19427, sections 2.3 and 2.4).

    u = conv(x W_x + b_x),    y = GELU(x W_y + b_y),    out = (h ⊙ y) W_out + b_out
    r_t = σ(u_t W_a + b_a),    i_t = σ(u_t W_i + b_i),    log a_t = −c softplus(Λ) ⊙ r_t,    c = 8
    h_t = a_t ⊙ h_{t−1} + √(1 − a_t²) ⊙ i_t ⊙ u_t,    h_1 = i_1 ⊙ u_1

with W_a and W_i block-diagonal. The first step of a sequence has no past to make room for, so its input enters
unscaled, as in the official code; the paper does not say.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, Part, State, Traits
from zoo.layers.linear import Linear, fan_in_
from zoo.layers.ranges import at_least_one
from zoo.layers.short_convolution import ShortConvolution
from zoo.layers.tensors import in_fp32, zero_padding, zeros_fp32
from zoo.ops.diagonal_scan import scan, step

C = 8.0
STEEPEST = 1000.0
"""The largest slope of √(1 − a²), whose own is infinite at a = 1 (`_MAX_SQRT_GRADIENT`)."""

HAWK_AND_GRIFFIN = (
    "parameters carry the names of transformers' port, where the gates are no modules of their own",
    "the recurrence is as wide as the model by default (RecurrentGemma), where the paper takes about 4/3 of it",
    "a starts uniform on a ring of radii 0.9 to 0.999 (official code), where the paper draws a^c between them",
    "the first input of a sequence enters unscaled (official code; the paper scales it as all others)",
    "gates and decay are computed in float32 where the official code leaves them in bfloat16",
    "the token embedding is not scaled by √width and not tied to the output head",
)


@register(
    family="state spaces and long convolutions",
    paper="De et al. 2024, Griffin: Mixing Gated Linear Recurrences with Local Attention for Efficient Language "
    "Models, arXiv:2402.19427",
    source="https://github.com/google-deepmind/recurrentgemma (recurrentgemma/torch/layers.py, modules.py)",
    deviations=HAWK_AND_GRIFFIN,
    channel=Part("glu", activation="gelu_tanh", expand=3.0, bias=True),
    norm="rms_one",
)
class RecurrentBlock(Mixer):
    """Hawk: blocks of a gated linear recurrence (RG-LRU) behind a short convolution, and a gated GELU MLP.

    State: the last inputs of the convolution, `conv` (B, R, d_conv − 1), `h` (B, R), and `started` (B,), whether a
    step was taken.

    Args:
        heads: blocks on the diagonals of W_a and W_i.
        lru_width: R, channels of the recurrence. None: the width.
        d_conv: the width of the convolution (conv1d_temporal_width).
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(self, context: LayerContext, *, heads: int = 4, lru_width: int | None = None, d_conv: int = 4) -> None:
        super().__init__(context)
        R = context.width if lru_width is None else lru_width
        at_least_one("rg_lru", heads=heads, lru_width=R, d_conv=d_conv)
        if R % heads:
            raise ValueError(f"rg_lru: lru_width {R} does not divide into {heads} heads")
        self.linear_y = Linear(context.width, R)
        self.linear_x = Linear(context.width, R)
        self.linear_out = Linear(R, context.width)
        self.conv_1d = ShortConvolution(R, d_conv, bias=True, activation=None)
        self.rg_lru = RGLRU(R, heads)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        y = F.gelu(self.linear_y(x), approximate="tanh")
        u, last = self.conv_1d(self.linear_x(x), mask=mask, state=None if state is None else state["conv"])
        before = self.init_state(len(x), device=x.device, dtype=u.dtype) if state is None else state
        h = self.rg_lru(u, mask, before["h"], before["started"])
        started = torch.ones_like(before["started"]) if mask is None else before["started"] | mask.any(1)
        y = self.linear_out(h.to(u.dtype) * y)
        return y, None if state is None else {"conv": last, "h": h[:, -1], "started": started}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        line = self.conv_1d.init_state(batch, device=device, dtype=dtype)
        h = zeros_fp32(batch, self.linear_out.in_features, device=device, dtype=dtype)
        return {"conv": line, "h": h, "started": torch.zeros(batch, device=device, dtype=torch.bool)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Matrices N(0, 1/fan_in), W_out times √(2/depth), the convolution N(0, 0.01/width); biases 0."""
        for linear in (self.linear_x, self.linear_y):
            fan_in_(linear)
        fan_in_(self.linear_out, (2 / depth) ** 0.5)
        nn.init.normal_(self.conv_1d.weight, std=0.1 * self.conv_1d.kernel_size[0] ** -0.5)
        nn.init.zeros_(self.conv_1d.get_parameter("bias"))
        self.rg_lru.reset_parameters()

    def param_overrides(self) -> dict[str, ParamOverride]:
        """Weight decay on the gates' matrices too, though they are no layers of torch; not on Λ."""
        gates = dict.fromkeys(("rg_lru.input_gate_weight", "rg_lru.recurrent_gate_weight"), ParamOverride(decay=True))
        return {**gates, "rg_lru.recurrent_param": ParamOverride(decay=False)}


class RGLRU(nn.Module):
    """The real-gated linear recurrent unit (paper, section 2.4), with `recurrent_param` for Λ."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        block = width // heads
        self.recurrent_param = nn.Parameter(torch.empty(width))
        self.input_gate_weight = nn.Parameter(torch.empty(heads, block, block))
        self.input_gate_bias = nn.Parameter(torch.empty(heads, block))
        self.recurrent_gate_weight = nn.Parameter(torch.empty(heads, block, block))
        self.recurrent_gate_bias = nn.Parameter(torch.empty(heads, block))

    def forward(
        self, u: Float[Tensor, "B T R"], mask: Mask | None, h0: Float[Tensor, "B R"], started: Bool[Tensor, " B"]
    ) -> Float[Tensor, "B T R"]:
        """h_t, in float32 at least."""
        r = gate(u, self.recurrent_gate_weight, self.recurrent_gate_bias)
        i = gate(u, self.input_gate_weight, self.input_gate_bias)
        return self._scan(u, r, i, mask, h0, started)

    @in_fp32
    def _scan(
        self, u: Tensor, r: Tensor, i: Tensor, mask: Mask | None, h0: Tensor, started: Tensor
    ) -> Float[Tensor, "B T R"]:
        log_a = -C * r * F.softplus(self.recurrent_param)
        a, room = log_a.exp(), BoundedSqrt.apply(-torch.expm1(2 * log_a))
        first = (torch.arange(u.shape[1], device=u.device) == 0) & ~started[:, None]
        b = torch.where(first[..., None], 1, room) * i * u
        a, b = zero_padding(a, mask, value=1.0), zero_padding(b, mask)
        return scan(a, b, h0) if u.shape[1] > 1 else step(a[:, 0], b[:, 0], h0)[:, None]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Matrices N(0, 1/fan_in), biases 0, and a uniform on the ring between the radii 0.9 and 0.999."""
        for weight in (self.input_gate_weight, self.recurrent_gate_weight):
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        for bias in (self.input_gate_bias, self.recurrent_gate_bias):
            nn.init.zeros_(bias)
        square = self.recurrent_param.uniform_(0.9**2 + 1e-8, 0.999**2 + 1e-8)
        square.log_().mul_(-0.5).expm1_().log_()  # softplus⁻¹(−ln a)


def gate(
    x: Float[Tensor, "B T R"], weight: Float[Tensor, "H d d"], bias: Float[Tensor, "H d"]
) -> Float[Tensor, "B T R"]:
    """σ(x W + b) with W block-diagonal."""
    blocks = x.unflatten(-1, (len(weight), -1))
    logits = torch.einsum("bthi,hij->bthj", blocks, weight)
    return in_fp32(lambda x, b: torch.sigmoid(x + b))(logits, bias).flatten(2)


class BoundedSqrt(torch.autograd.Function):
    """√x with a slope of at most `STEEPEST`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.sqrt(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return dy / (2 * y).clamp(min=1 / STEEPEST)

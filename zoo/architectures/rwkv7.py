"""RWKV-7, "Goose" (Peng et al. 2025, arXiv:2503.14456, section 4).

A generalised delta rule on a matrix S per head of N channels. With the token shift x^c = x_t + μ_c ⊙ (x_{t−1} − x_t):

    r, k, v = x^r W_r, x^k W_k, x^v W_v                     w = exp(−e^{−1/2} σ(w₀ + tanh(x^w W₁) W₂))
    a = σ(a₀ + x^a A₁ A₂),    g = σ(x^g G₁) G₂              v ← v + (v_first − v) ⊙ σ(v₀ + x^v V₁ V₂)
    κ̂ = k ⊙ k_k / ‖k ⊙ k_k‖ per head,                       k ← k ⊙ (1 + (a − 1) ⊙ k_a)
    S_t = diag(w_t) S_{t−1} − (κ̂_t ⊙ a_t) (S_{t−1}ᵀ κ̂_t)ᵀ + k_t v_tᵀ,    y_t = S_tᵀ r_t
    out = ((GroupNorm(y) + (Σ r ⊙ k ⊙ r_k) v) ⊙ g) W_o

v_first is v of the stack's first layer at the same step. S here is keys by values, the transpose of the official one.
Channel mixing, 4 times as wide inside, has no gate:  out = max(x^k W_k, 0)² W_v.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, Part, Recipe, State, Traits
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.rwkv import ChannelMixing, count_heads, norm_heads, param_overrides, shift
from zoo.layers.tensors import in_fp32, split_heads, zero_padding, zeros_fp32
from zoo.ops.delta_rule import dplr

FLOOR = -math.exp(-0.5)
"""The strongest log decay of one step."""


class TimeMix(Mixer):
    """Time mixing. State: the last input `x` (B, D), and `S` (B, H, N, N), keys by values.

    Args:
        head_size: N.
        decay_lora, a_lora, v_lora, gate_lora: the ranks of W₁W₂, A₁A₂, V₁V₂, G₁G₂; None for the official suggestion,
            2.5√D, 2.5√D, 1.7√D and 5√D, rounded to a multiple of 32, at least 32.
        head_size_divisor: y is divided by it before the GroupNorm (eps 1e-5).
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    shared_context = True

    def __init__(
        self,
        context: LayerContext,
        *,
        head_size: int = 32,
        decay_lora: int | None = None,
        a_lora: int | None = None,
        v_lora: int | None = None,
        gate_lora: int | None = None,
        head_size_divisor: float = 8.0,
    ) -> None:
        super().__init__(context)
        C = context.width
        self.heads, self.head_size = count_heads(C, head_size), head_size
        for c in "rwkvag":
            self.register_parameter(f"x_{c}", nn.Parameter(torch.empty(1, 1, C)))
        positive("rwkv", head_size_divisor=head_size_divisor)
        at_least_one("rwkv7", decay_lora=decay_lora, a_lora=a_lora, v_lora=v_lora, gate_lora=gate_lora)
        # The first layer has no v before its own.
        self.loras = {"w": (decay_lora, 2.5), "a": (a_lora, 2.5), "v": (v_lora, 1.7), "g": (gate_lora, 5.0)}
        if context.layer == 0:
            del self.loras["v"]
        for c, (given, factor) in self.loras.items():
            rank = max(32, round(factor * C**0.5 / 32) * 32) if given is None else given
            if c != "g":
                self.register_parameter(f"{c}0", nn.Parameter(torch.empty(1, 1, C)))
            self.register_parameter(f"{c}1", nn.Parameter(torch.empty(C, rank)))
            self.register_parameter(f"{c}2", nn.Parameter(torch.empty(rank, C)))
        self.k_k, self.k_a = nn.Parameter(torch.empty(1, 1, C)), nn.Parameter(torch.empty(1, 1, C))
        self.r_k = nn.Parameter(torch.empty(self.heads, head_size))
        self.receptance, self.key, self.value, self.output = (nn.Linear(C, C, bias=False) for _ in range(4))
        self.ln_x = nn.GroupNorm(self.heads, C, eps=1e-5 * head_size_divisor**2)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    @classmethod
    def width_multiple(cls, *, head_size: int, **_: Any) -> int:
        return max(1, head_size)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Mask | None = None,
        state: State | None = None,
        shared_context: dict[str, Any] | None = None,
    ) -> Mixed:
        """As `Mixer.forward`. `shared_context["v_first"]` is v of the first layer, (B, T, D), which leaves it there."""
        previous, last = shift(x, mask, state)
        xr, xw, xk, xv, xa, xg = (torch.lerp(x, previous, getattr(self, f"x_{c}").to(x.dtype)) for c in "rwkvag")
        r, k, v = self.receptance(xr), self.key(xk), self.value(xv)
        v_first = v if shared_context is None else shared_context.setdefault("v_first", v)
        if "v" in self.loras:
            v = torch.lerp(v, v_first.to(v.dtype), torch.sigmoid(self._low("v", xv)).to(v.dtype))
        g = self._low("g", xg, torch.sigmoid)
        y, S = self._wkv(r, k, v, xw, xa, mask, None if state is None else state["S"])
        return self.output((y * g).to(x.dtype)), None if state is None else {"x": last, "S": S}

    @in_fp32
    def _wkv(
        self, r: Tensor, k: Tensor, v: Tensor, xw: Tensor, xa: Tensor, mask: Mask | None, S: Tensor | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B H N N"]]:
        """The output before its gate, and the last S. A masked step neither forgets nor adds."""
        log_w = FLOOR * torch.sigmoid(self._low("w", xw, torch.tanh))
        a = torch.sigmoid(self._low("a", xa))
        kappa, k = k * self.k_k, k * (1 + (a - 1) * self.k_a)
        r, k, v, a, kappa, log_w = (split_heads(z, self.heads) for z in (r, k, v, a, kappa, log_w))
        kappa = F.normalize(kappa, dim=-1)
        r, k, v, a, kappa, log_w = (zero_padding(z, mask, 2) for z in (r, k, v, a, kappa, log_w))
        y, S = dplr(r, k, v, -kappa, kappa * a, log_w, S, floor=FLOOR)
        bonus = (r * k * self.r_k[:, None]).sum(-1, keepdim=True) * v
        return norm_heads(self.ln_x, y) + bonus.transpose(1, 2).flatten(2), S

    def _low(self, c: str, x: Tensor, activation: Any = None) -> Tensor:
        """c₀ + activation(x C₁) C₂, the products in x's precision; g has no c₀."""
        low = x @ getattr(self, f"{c}1").to(x.dtype)
        low = (low if activation is None else activation(low)) @ getattr(self, f"{c}2").to(x.dtype)
        return low if c == "g" else getattr(self, f"{c}0") + low

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        x = torch.zeros(batch, self.key.in_features, device=device, dtype=dtype)
        S = zeros_fp32(batch, self.heads, self.head_size, self.head_size, device=device, dtype=dtype)
        return {"x": x, "S": S}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """As the class, and `generate_init_weight` for the matrices, which overwrites the uniform ones of the class."""
        C, N = self.key.in_features, self.head_size
        n = torch.arange(C, device=self.k_k.device)
        up, down = layer / max(depth - 1, 1), 1 - layer / depth  # 0 to 1, and 1 to almost 0
        for c, power in zip("rwkvag", (0.2, 0.9, 0.7, 0.7, 0.9, 0.2), strict=True):
            getattr(self, f"x_{c}").copy_(1 - (n / C) ** (power * down))
        ramp = n / max(C - 1, 1)
        linear = ramp - 0.5
        zigzag = (n % N - (N - 1) / 2) / ((N - 1) / 2)  # −1 to 1 within each head
        zigzag = zigzag * zigzag.abs()
        self.get_parameter("w0").copy_(-6 + 6 * ramp ** (1 + up**0.3) + 0.5 + 2.5 * zigzag)
        self.get_parameter("a0").copy_(-0.19 + 0.3 * zigzag + 0.4 * linear)
        if "v" in self.loras:
            self.get_parameter("v0").copy_(0.73 - 0.4 * linear)
        for c in self.loras:
            second = self.get_parameter(f"{c}2")
            nn.init.zeros_(self.get_parameter(f"{c}1"))
            nn.init.orthogonal_(second, gain=0.1 * max(second.shape[0] / C, 1) ** 0.5)
        self.k_k.copy_(0.71 - 0.1 * linear)
        nn.init.constant_(self.k_a, 1.02)
        nn.init.constant_(self.r_k, -0.04)
        for matrix, gain in ((self.receptance, 1.0), (self.key, 0.1), (self.value, 1.0)):
            nn.init.orthogonal_(matrix.weight, gain=gain)
        nn.init.zeros_(self.output.weight)
        nn.init.constant_(self.ln_x.weight, ((1 + layer) / depth) ** 0.7)
        nn.init.zeros_(self.ln_x.bias)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """Twice the learning rate on w₀; no weight decay on anything but the four matrices."""
        return param_overrides(self, w0=2.0)


class ChannelMix(ChannelMixing):
    """Channel mixing without a gate."""

    mixes = ("x_k",)
    axes = (1, 1)
    weighs_previous = True
    power = 4


@register(
    options=TimeMix,
    family="RWKV",
    paper='Peng et al. 2025, RWKV-7 "Goose" with Expressive Dynamic State Evolution, arXiv:2503.14456, section 4',
    source="https://github.com/BlinkDL/RWKV-LM (RWKV-v7/train_temp/src/model.py, x070; RWKV-v7/rwkv_v7_numpy.py)",
    deviations=(
        "heads of 32 channels, where the official code has 64: narrow models then still have several",
        "the first layer has no v0, v1, v2, which the official code creates there and never uses",
        "matrices start as the official generate_init_weight leaves them, orthogonal, not as its layers' uniform draws",
        "the decay and a are computed in float32 under autocast too, officially in bfloat16",
        "no L2Wrap (a pull of the largest logit to zero that the official code adds to the gradient)",
        "at depth 1 the ramps over depth take layer 0's values, where the official code divides by zero",
    ),
)
def rwkv7(*, expand: float = 4.0, **options: Any) -> Recipe:
    """RWKV-7, Goose: a generalised delta rule on a matrix state, values mixed with the first layer's."""
    return Recipe(
        Part(TimeMix, **options),
        channel=Part(ChannelMix, expand=expand),
        residual="pre",
        embedding="rwkv5",
        head="rwkv4",
    )

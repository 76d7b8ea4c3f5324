"""Hyena (Poli et al. 2023, arXiv:2302.10866, section 3).

    x⁰, ..., x^{N−1}, v = depthwise short convolution of x W_in
    v ← h^o ∗ (x^{N−1−o} ⊙ v) + b^o ⊙ (x^{N−1−o} ⊙ v)    for o = 0, ..., N − 2
    y = (x⁰ ⊙ v) W_out

for order N. The filters h^o are as long as the longest sequence, and implicit: an MLP of the time step with sines for
activations, under an exponential window,

    h(t) = MLP(z_t) ⊙ (e^{−|δ| t} + shift),    z_t = [t, Re e^{−iωf}, Im e^{−iωf}]

with t from 0 to 1 over the longest sequence, so that its length is part of the function. Channel o·D + d of the MLP is
channel d of filter o, as in standalone_hyena.py; src/models/sequence/hyena.py has d·(N − 1) + o.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, State, Traits
from zoo.layers.linear import Linear, branch_
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.short_convolution import ShortConvolution
from zoo.layers.tensors import in_fp32, put_steps, take_steps, zero_padding, zeros_fp32
from zoo.ops.long_convolution import convolve


@register(
    family="state spaces and long convolutions",
    paper="Poli et al. 2023, Hyena Hierarchy: Towards Larger Convolutional Language Models, arXiv:2302.10866",
    source="https://github.com/HazyResearch/safari (standalone_hyena.py; src/models/sequence/hyena.py)",
    deviations=(
        "order>2: the filters' channels are laid out as in standalone_hyena.py (order first), not as in "
        "src/models/sequence/hyena.py",
        "decoding keeps all past inputs of each long convolution; the official code cannot decode step by step",
        "sequences longer than built for are refused; the official code cuts them",
        "the two projections start at N(0, 1/fan_in), the last one scaled by 1/sqrt(2 depth)",
        "the filter's skip (filter_fn.bias) does not decay",
        "no dropout, outer mixing, heads, blocks, inner_factor or post_order_ffn",
        "both ways: two operators, one in reverse time, as the official code has no bidirectional one",
    ),
)
class Hyena(Mixer):
    """Hyena: gates between implicit convolutions as long as the sequence, in a Pre-LN transformer block.

    State: the inputs of each long convolution so far, `z` (B, S, N − 1, D), which grow with every step as a KV cache
    does; how many of them count in each row, `n` (B,); the last inputs of the short convolution, `short`.

    Args:
        filter_order: width of the filters' MLP. emb_dim: numbers in z_t, odd. num_inner_mlps: its hidden layers beyond
            the first. short_filter_order: width of the short convolution. w: where the frequency of the sines starts.
        fast_decay_pct, slow_decay_pct, target: the windows fall to `target` within these fractions of the length,
            channels being spread between the two. shift: what remains of them.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True, length="max")
    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        order: int = 2,
        filter_order: int = 64,
        emb_dim: int = 3,
        num_inner_mlps: int = 2,
        short_filter_order: int = 3,
        w: float = 1.0,
        fast_decay_pct: float = 0.3,
        slow_decay_pct: float = 1.5,
        target: float = 1e-2,
        shift: float = 0.0,
    ) -> None:
        super().__init__(context)
        if order < 2:
            raise ValueError(f"hyena: order must be at least 2, got {order}")
        if not 0 < fast_decay_pct <= slow_decay_pct or not 0 < target < 1:
            got = f"got {fast_decay_pct}, {slow_decay_pct} and {target}"
            raise ValueError(f"hyena: need 0 < fast_decay_pct <= slow_decay_pct and 0 < target < 1, {got}")
        at_least_one("hyena", short_filter_order=short_filter_order)
        D = context.width
        self.width, self.order, self.l_max, self.gain = D, order, context.length, context.gain
        self.in_proj = Linear(D, (order + 1) * D)
        self.short_filter = ShortConvolution((order + 1) * D, short_filter_order, bias=True, activation=None)
        if emb_dim < 3 or emb_dim % 2 == 0:
            raise ValueError(f"hyena: emb_dim must be odd and at least 3 (time, cosines, sines), got {emb_dim}")
        if filter_order < 1 or num_inner_mlps < 0:
            raise ValueError(f"hyena: no MLP of num_inner_mlps {num_inner_mlps} layers of filter_order {filter_order}")
        positive("hyena", w=w)
        self.w, self.decays = w, (math.log(target) / slow_decay_pct, math.log(target) / fast_decay_pct)
        self.filter_fn = Filter((order - 1) * D, context.length, filter_order, emb_dim, num_inner_mlps, shift)
        self.out_proj = Linear(D, D)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        _, T, D = x.shape
        S = T if state is None else state["z"].shape[1] + T
        if self.l_max < S:
            raise ValueError(f"hyena: {S} steps exceed the {self.l_max} that the filters were built for")
        u = self.in_proj(zero_padding(x, mask))  # the short convolution masks what the bias makes of that
        u, short = self.short_filter(u, mask=mask, state=None if state is None else state["short"], narrow=True)
        *gates, v = u.split(D, dim=2)
        K = self.filter_fn(S).view(S, self.order - 1, D).permute(1, 2, 0)  # (N − 1, D, S)
        bias, inputs = self.filter_fn.bias.view(self.order - 1, D), []
        for o, gate in enumerate(reversed(gates[1:])):
            z = zero_padding(v * gate, mask)
            if state is None:
                v = convolve(z, K[o], bias[o])
            else:
                at = state["n"][:, None] + torch.arange(T, device=x.device)
                inputs.append(put_steps(F.pad(state["z"][:, :, o], (0, 0, 0, T)), z, at))  # padding stands at the end
                v = _convolve_at(inputs[-1], K[o], at) + bias[o] * z
        y = self.out_proj((v * gates[0]).to(x.dtype))
        if state is None:
            return y, None
        n = state["n"] + (T if mask is None else mask.sum(1))
        return y, {"z": torch.stack(inputs, dim=2), "short": short, "n": n}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        z = zeros_fp32(batch, 0, self.order - 1, self.width, device=device, dtype=dtype)
        short = self.short_filter.init_state(batch, device=device, dtype=z.dtype)
        return {"z": z, "short": short, "n": z.new_zeros(batch, dtype=torch.long)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_` and `Filter`; the short convolution keeps PyTorch's."""
        branch_(self.in_proj, out=self.out_proj, depth=depth, gain=self.gain)
        self.short_filter.reset_parameters()
        self.filter_fn.reset_parameters(self.w, self.decays)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """The filters' MLP learns at 1e-3 at most, z at 1e-5; nothing of the filters decays, nor do biases."""
        names = [name for name, _ in self.named_parameters() if name.startswith("filter_fn.implicit_filter")]
        biases = ["in_proj.bias", "short_filter.bias", "out_proj.bias", "filter_fn.bias"]
        slow, free = ParamOverride(lr_max=1e-3, decay=False), ParamOverride(decay=False)
        z = {"filter_fn.pos_emb.z": ParamOverride(lr_max=1e-5, decay=False)}
        return dict.fromkeys(names, slow) | dict.fromkeys(biases, free) | z


class Filter(nn.Module):
    """h and the skip b, for C channels and L steps. `filter(S)` gives the first S of them, (S, C)."""

    def __init__(self, C: int, L: int, filter_order: int, emb_dim: int, num_inner_mlps: int, shift: float) -> None:
        super().__init__()
        self.shift = shift
        self.bias = nn.Parameter(torch.empty(C))
        self.pos_emb: Any = nn.Module()  # these two for the official names
        self.modulation: Any = nn.Module()
        self.pos_emb.z = nn.Parameter(torch.empty(1, L, emb_dim))
        self.pos_emb.register_buffer("t", torch.empty(1, L, 1))
        self.modulation.register_buffer("deltas", torch.empty(1, 1, C))
        sine = Sine(filter_order)  # one for all layers, as in the official code
        inner = [m for _ in range(num_inner_mlps) for m in (nn.Linear(filter_order, filter_order), sine)]
        self.implicit_filter = nn.Sequential(
            nn.Linear(emb_dim, filter_order), sine, *inner, nn.Linear(filter_order, C, bias=False)
        )

    @in_fp32
    def forward(self, S: int) -> Float[Tensor, "S C"]:
        h = self.pos_emb.z[0, :S]
        for layer in self.implicit_filter:
            h = layer(h)
        return h * (torch.exp(-self.pos_emb.t[0, :S] * self.modulation.deltas[0].abs()) + self.shift)

    @torch.no_grad()
    def reset_parameters(self, w: float, decays: tuple[float, float]) -> None:
        """z and the window by their formulas, sines of frequency w, b ~ N(0, 1); PyTorch's layers."""
        _, L, emb_dim = self.pos_emb.z.shape
        bands, device = (emb_dim - 1) // 2, self.bias.device
        t = torch.linspace(0, 1, L, device=device, dtype=torch.float64)[:, None]
        f = torch.linspace(1e-4, bands - 1, bands, device=device, dtype=torch.float64)
        angle = f * 2 * math.pi / L * torch.arange(L, device=device)[:, None]
        self.pos_emb.t.copy_(t)
        self.pos_emb.z.copy_(torch.cat([t, angle.cos(), -angle.sin()], dim=1))
        self.modulation.deltas.copy_(torch.linspace(*decays, self.bias.numel(), device=device))
        for layer in self.implicit_filter:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
            elif isinstance(layer, Sine):
                nn.init.constant_(layer.freq, w)
        nn.init.normal_(self.bias)


class Sine(nn.Module):
    """sin(freq ⊙ x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.freq = nn.Parameter(torch.empty(1, width))

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        return torch.sin(self.freq * x)


@in_fp32
def _convolve_at(z: Float[Tensor, "B S D"], K: Float[Tensor, "D S"], at: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
    """(K ∗ z)_t for the steps t in `at`."""
    if at.shape[1] > 1:
        return take_steps(convolve(z, K), at)
    lag = at - torch.arange(z.shape[1], device=z.device)  # (B, S)
    weights = K.T[lag.clamp(min=0)]  # whatever they are where lag < 0: nothing but zeros stands there
    return torch.einsum("bsd,bsd->bd", weights, z)[:, None]

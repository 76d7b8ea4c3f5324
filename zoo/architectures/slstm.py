"""sLSTM, the layer of xLSTM with recurrent weights (Beck et al. 2024, arXiv:2405.04517, section 2.2 and appendix A).

    a = SiLU(conv(x))
    ĩ, f̃ = W_i a + R_i h_{t−1} + b_i, W_f a + R_f h_{t−1} + b_f
    z, o = tanh(W_z x + R_z h_{t−1} + b_z), σ(W_o x + R_o h_{t−1} + b_o)
    c_t = σ(f̃) ⊙ c_{t−1} + e^ĩ ⊙ z,    n_t = σ(f̃) ⊙ n_{t−1} + e^ĩ,    h_t = o ⊙ c_t / n_t,    y = norm(h)

W and R have one block per head, and the norm is over each head. c and n are kept divided by e^m, with
m_t = max(ln σ(f̃) + m_{t−1}, ĩ), which cancels out of h. As h_{t−1} stands inside the gates, there is no parallel
form: see `zoo.ops.slstm`.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, Part, Recipe, State, Traits
from zoo.layers.ranges import head_width
from zoo.layers.short_convolution import ShortConvolution
from zoo.layers.tensors import zero_padding, zeros_fp32
from zoo.layers.xlstm import LinearHeadwise, MultiHeadLayerNorm
from zoo.ops import slstm as recurrence
from zoo.ops.slstm import LOWEST


class SLSTM(Mixer):
    """The official sLSTMLayer, under its parameter names. State: `h`, `c`, `n` and `m` (B, D) in float32 at least, and
    the last inputs of the convolution `conv` (B, D, W − 1).

    The official code calls W_i `fgate` and W_f `igate`; so do we, as weights are exchanged by name.

    Args:
        heads: H. conv1d_kernel_size: W; 0 for no convolution. group_norm_weight: whether the norm has weights.
        bias_init: of b_f. `powerlaw_blockdependent`: from 5 to −7 along a head, bent the more the deeper the layer;
            `small_init`: from 3 to 6. The other biases are zero, but for `standard`: all uniform within ±1/√D.
        recurrent_weight_init: of R; `standard`: uniform within ±1/√D.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        conv1d_kernel_size: int = 4,
        group_norm_weight: bool = True,
        bias_init: Literal["powerlaw_blockdependent", "small_init", "zeros", "standard"] = "powerlaw_blockdependent",
        recurrent_weight_init: Literal["zeros", "standard"] = "zeros",
    ) -> None:
        super().__init__(context)
        self.width = D = context.width
        d = head_width("slstm", D, heads)
        if conv1d_kernel_size < 0:
            raise ValueError(f"slstm: conv1d_kernel_size must be at least 0, got {conv1d_kernel_size}")
        self.heads, self.bias_init, self.recurrent_weight_init = heads, bias_init, recurrent_weight_init
        self.conv1d: Any = None
        if conv1d_kernel_size:
            self.conv1d = nn.ModuleDict({"conv": ShortConvolution(D, conv1d_kernel_size, bias=True)})
        self.fgate, self.igate, self.zgate, self.ogate = (LinearHeadwise(D, heads, bias=False) for _ in range(4))
        # R, per head the rows of gates i, f, z and o, and b, gate by gate; one level down for the official names.
        self.slstm_cell: Any = nn.Module()
        self.slstm_cell._recurrent_kernel_ = nn.Parameter(torch.empty(heads, 4 * d, d))
        self.slstm_cell._bias_ = nn.Parameter(torch.empty(4 * D))
        self.group_norm = MultiHeadLayerNorm(D, heads, weight=group_norm_weight)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        a, new = x, {}
        if self.conv1d is not None:
            a, new["conv"] = self.conv1d["conv"](x, mask=mask, state=None if state is None else state["conv"])
        f, i, z, o = self.fgate(a), self.igate(a), self.zgate(x), self.ogate(x)
        R = self.slstm_cell._recurrent_kernel_.unflatten(1, (4, -1))
        b = self.slstm_cell._bias_.unflatten(0, (4, self.heads, -1)).transpose(0, 1)
        before = None if state is None else tuple(state[name].unflatten(1, (self.heads, -1)) for name in "hcnm")
        h, after = recurrence.slstm(f, i, z, o, R, b, before, mask)
        new |= {name: value.flatten(1) for name, value in zip("hcnm", after, strict=True)}
        return self.group_norm(h.flatten(2)).to(x.dtype), None if state is None else new

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        h = zeros_fp32(batch, self.width, device=device, dtype=dtype)
        state: State = {"h": h, "c": h.clone(), "n": h.clone(), "m": torch.full_like(h, LOWEST)}
        if self.conv1d is not None:
            state["conv"] = self.conv1d["conv"].init_state(batch, device=device, dtype=dtype)
        return state

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 2/(5 D)), R and b by `recurrent_weight_init` and `bias_init`; the convolution keeps PyTorch's."""
        D = self.width
        for gate in (self.fgate, self.igate, self.zgate, self.ogate):
            nn.init.normal_(gate.weight, std=(0.4 / D) ** 0.5)
        if self.conv1d is not None:
            self.conv1d["conv"].reset_parameters()
        self.group_norm.reset_parameters()
        R, b = self.slstm_cell._recurrent_kernel_, self.slstm_cell._bias_
        for parameter, how in ((R, self.recurrent_weight_init), (b, self.bias_init)):
            if how == "standard":
                nn.init.uniform_(parameter, -(D**-0.5), D**-0.5)
            else:
                nn.init.zeros_(parameter)
        forget, d = b.view(4, self.heads, -1)[1], D // self.heads
        if self.bias_init == "powerlaw_blockdependent":
            along = torch.arange(d, device=b.device) / max(d - 1, 1)
            forget.copy_(5 - 12 * along ** (0.3 + 1.3 * layer / max(depth - 1, 1)))
        elif self.bias_init == "small_init":
            forget.copy_(torch.linspace(3, 6, d))

    def param_overrides(self) -> dict[str, ParamOverride]:
        """The gates' matrices decay like any; R, b and the norm's weights do not."""
        free = [name for name, _ in self.named_parameters() if name.startswith(("slstm_cell", "group_norm"))]
        gates = [f"{name}gate.weight" for name in "fizo"]
        return dict.fromkeys(free, ParamOverride(decay=False)) | dict.fromkeys(gates, ParamOverride(decay=True))


@register(
    options=SLSTM,
    family="recurrent",
    paper="Beck et al. 2024, xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517",
    source="https://github.com/NX-AI/xlstm (xlstm/blocks/slstm/layer.py, cell.py, src/vanilla/slstm.py)",
    deviations=(
        "LayerNorm before the layer has a bias and its weight starts at 1 (official: no bias, weight 1 + w from w = 0)",
        "the weights named fgate drive the input gate and igate the forget gate, as in the official code",
        "the forget gate is σ, the official cell's; the paper leaves σ or exp open",
        "recurrent weights start at zero and the forget bias at a power law from 5 to −7, the official cell's default",
        "a new row starts at m = −∞ by itself, as in the official CUDA kernel; the vanilla one asks the whole batch",
        "the gated MLP is 1.3 D wide, not rounded up to a multiple of 64, and starts at N(0, 1/fan_in), its output "
        "scaled by 1/√(2·depth)",
        "no dropout inside the layer",
    ),
)
def slstm(*, expand: float = 1.3, **options: Any) -> Recipe:
    """xLSTM[0:1]: blocks of sLSTM, an LSTM with exponential input gates and recurrent heads, and a gated MLP."""
    return Recipe(Part(SLSTM, **options), channel=Part("glu", activation="gelu", expand=expand))

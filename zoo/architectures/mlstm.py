"""mLSTM, the layer of xLSTM with a matrix memory (Beck et al. 2024, arXiv:2405.04517, section 2.3 and appendix A).

    a, z = x W_up,    c = SiLU(conv(a)),    q, k, v = W_q c, W_k c, W_v a
    i, f = W_i [q, k, v] + b_i, W_f [q, k, v] + b_f        one of each per head
    C_t = σ(f_t) C_{t−1} + e^{i_t} (k_t/√d) v_tᵀ,    n_t = σ(f_t) n_{t−1} + e^{i_t} k_t/√d
    h_t = C_tᵀ q_t / max(|n_t · q_t|, 1),    y = ((norm(h) + s ⊙ c) ⊙ SiLU(z)) W_down

W_q, W_k and W_v are block-diagonal. Everything grows like e^i, so C and n are kept divided by e^m: see `zoo.ops.mlstm`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, State, Traits
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.short_convolution import ShortConvolution
from zoo.layers.tensors import in_fp32, merge_heads, zero_padding, zeros_fp32
from zoo.layers.xlstm import LinearHeadwise, MultiHeadLayerNorm
from zoo.ops.mlstm import mlstm
from zoo.ops.mlstm.naive import MLSTMState


@register(
    family="fast weights and matrix states",
    paper="Beck et al. 2024, xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517",
    source="https://github.com/NX-AI/xlstm (xlstm/blocks/mlstm/layer.py, cell.py, backends.py)",
    deviations=(
        "LayerNorm before the layer has a bias and its weight starts at 1 (official: no bias, weight 1 + w from w = 0)",
        "the width inside, 2 D, is rounded up to what divides into heads and blocks; "
        "round_proj_up_to_multiple_of=64 is official",
        "the stabiliser m starts at 0 as in the official step, and in the parallel form too (official there: −∞); "
        "this and the ε = 1e-6 that m then scales change outputs by about 1e-6, and gradients leave it out",
        "the output gate is SiLU(z), behind norm and skip, as in the official code; eq. (21) of the paper has σ(o) ⊙ h",
        "no dropout inside the layer",
    ),
    channel=None,
    depth=8,
)
class MLSTM(Mixer):
    """xLSTM[1:0]: blocks of mLSTM, a matrix memory with exponential input gates and no recurrent weights.

    State: the last inputs `conv` (B, I, W − 1), and `C` (B, H, d, d), `n` (B, H, d), `m` (B, H) in float32 at least.

    Args:
        heads: H. conv1d_kernel_size: W. bias: of W_up, W_q, W_k, W_v and W_down.
        qkv_proj_blocksize: the size of the blocks of W_q, W_k and W_v.
        proj_factor: I, the width inside, is this times D, rounded up to a multiple of
        round_proj_up_to_multiple_of: None for the least that divides into heads and blocks.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        conv1d_kernel_size: int = 4,
        qkv_proj_blocksize: int = 4,
        proj_factor: float = 2.0,
        round_proj_up_to_multiple_of: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__(context)
        multiple = round_proj_up_to_multiple_of
        at_least_one("mlstm", heads=heads, conv1d_kernel_size=conv1d_kernel_size, qkv_proj_blocksize=qkv_proj_blocksize)
        at_least_one("mlstm", round_proj_up_to_multiple_of=multiple)
        positive("mlstm", proj_factor=proj_factor)
        multiple = math.lcm(heads, qkv_proj_blocksize) if multiple is None else multiple
        inner = math.ceil(proj_factor * context.width / multiple) * multiple
        for what, parts in (("heads", heads), ("blocks of that size", qkv_proj_blocksize)):
            if inner % parts:
                raise ValueError(
                    f"mlstm: {inner} units, {proj_factor:g} · {context.width} up to a multiple of {multiple} "
                    f"(round_proj_up_to_multiple_of), do not divide into {parts} {what}"
                )
        self.inner = inner
        self.proj_up = nn.Linear(context.width, 2 * inner, bias=bias)
        blocks = inner // qkv_proj_blocksize
        self.q_proj, self.k_proj, self.v_proj = (LinearHeadwise(inner, blocks, bias=bias) for _ in range(3))
        self.conv1d: Any = nn.ModuleDict({"conv": ShortConvolution(inner, conv1d_kernel_size, bias=True)})
        self.mlstm_cell = MLSTMCell(inner, heads)
        self.learnable_skip = nn.Parameter(torch.empty(inner))
        self.proj_down = nn.Linear(inner, context.width, bias=bias)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    @classmethod
    def width_multiple(cls, *_: Any, **options: Any) -> int:
        return 1  # the inner width is rounded up to what divides into heads

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        a, z = self.proj_up(x).split(self.inner, dim=-1)
        c, last = self.conv1d["conv"](a, mask=mask, state=None if state is None else state["conv"])
        before = None if state is None else (state["C"], state["n"], state["m"])
        i, f = self.gates(c, a)
        H = self.mlstm_cell.heads
        q, k, v = self.q_proj.by_head(c, H), self.k_proj.by_head(c, H), self.v_proj.by_head(a, H)
        h, after = self.mlstm_cell(q, k, v, i, f, mask=mask, state=before)
        y = self.proj_down(((h + self.learnable_skip * c) * in_fp32(F.silu)(z)).to(x.dtype))
        return y, None if state is None else {"conv": last, **dict(zip("Cnm", after, strict=True))}

    @in_fp32
    def gates(
        self, c: Float[Tensor, "B T I"], a: Float[Tensor, "B T I"]
    ) -> tuple[Float[Tensor, "B H T"], Float[Tensor, "B H T"]]:
        """i and f from what q, k and v are made of: W [W_q c, W_k c, W_v a] = (W W_q + W W_k) c + (W W_v) a."""
        gates, projections = (self.mlstm_cell.igate, self.mlstm_cell.fgate), (self.q_proj, self.k_proj, self.v_proj)
        weight, bias = (torch.cat([getattr(g, name) for g in gates]).to(c.dtype) for name in ("weight", "bias"))
        parts = list(zip(weight.split(self.inner, dim=1), projections, strict=True))
        of_q, of_k, of_v = (projection.before(part) for part, projection in parts)
        for part, projection in parts:
            bias = bias if projection.bias is None else bias + part @ projection.bias.to(c.dtype)
        both = F.linear(c, of_q + of_k, bias) + F.linear(a, of_v)
        i, f = both.transpose(1, 2).chunk(2, dim=1)
        return i, f

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        H, d = self.mlstm_cell.heads, self.inner // self.mlstm_cell.heads
        C = zeros_fp32(batch, H, d, d, device=device, dtype=dtype)
        conv = self.conv1d["conv"].init_state(batch, device=device, dtype=dtype)
        return {"conv": conv, "C": C, "n": C.new_zeros(batch, H, d), "m": C.new_zeros(batch, H)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 2/(5 D)), W_down ~ N(0, 4/(depth² D)), s = 1; the convolution keeps PyTorch's."""
        D = self.proj_down.out_features
        for projection in (self.proj_up, self.q_proj, self.k_proj, self.v_proj):
            nn.init.normal_(projection.weight, std=(0.4 / D) ** 0.5)
        nn.init.normal_(self.proj_down.weight, std=2 / depth / D**0.5)
        for projection in (self.proj_up, self.q_proj, self.k_proj, self.v_proj, self.proj_down):
            if projection.bias is not None:
                nn.init.zeros_(projection.bias)
        nn.init.ones_(self.learnable_skip)
        self.conv1d["conv"].reset_parameters()
        self.mlstm_cell.reset_parameters()

    def param_overrides(self) -> dict[str, ParamOverride]:
        """W_q, W_k and W_v decay like any matrix; the skip weights and the norm's do not."""
        free = dict.fromkeys(("learnable_skip", "mlstm_cell.outnorm.weight"), ParamOverride(decay=False))
        return free | {f"{name}_proj.weight": ParamOverride(decay=True) for name in "qkv"}


class MLSTMCell(nn.Module):
    """The weights of the gates, the memory and the norm over each head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.igate = nn.Linear(3 * width, heads)
        self.fgate = nn.Linear(3 * width, heads)
        self.outnorm = MultiHeadLayerNorm(width, heads)

    def forward(
        self,
        q: Float[Tensor, "B H T d"],
        k: Float[Tensor, "B H T d"],
        v: Float[Tensor, "B H T d"],
        i: Float[Tensor, "B H T"],
        f: Float[Tensor, "B H T"],
        *,
        mask: Mask | None = None,
        state: MLSTMState | None = None,
    ) -> tuple[Float[Tensor, "B T I"], MLSTMState]:
        """norm(h) in float32 at least, and the state after it."""
        h, after = mlstm(q, k, v, i, f, state, mask=mask)
        return self.outnorm(merge_heads(h)), after

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Gates that do not look at their input yet: b_f from 3 to 6 over the heads, b_i ~ N(0, 0.01)."""
        for gate in (self.igate, self.fgate):
            nn.init.zeros_(gate.weight)
        nn.init.normal_(self.igate.bias, std=0.1)
        self.fgate.bias.copy_(torch.linspace(3, 6, self.heads))
        self.outnorm.reset_parameters()

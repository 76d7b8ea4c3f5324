"""mLSTM, the layer of xLSTM with a matrix memory (Beck et al. 2024, arXiv:2405.04517, section 2.3 and appendix A;
official: NX-AI/xlstm, xlstm/blocks/mlstm/layer.py and cell.py).

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
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.contract import LayerContext, Mixer, ParamOverride, State, Traits
from zoo.layers.short_convolution import ShortConvolution
from zoo.ops.mlstm import mlstm
from zoo.ops.mlstm.naive import MLSTMState
from zoo.ops.precision import at_least_fp32, no_autocast


class MLSTM(Mixer):
    """The official mLSTMLayer, under its parameter names. State: the last inputs of the convolution `conv`
    (B, I, W − 1), and `C` (B, H, d, d), `n` (B, H, d) and `m` (B, H) in float32 at least.

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
        round_proj_up_to_multiple_of: int | None = 64,
        bias: bool = False,
    ) -> None:
        super().__init__(context)
        multiple = round_proj_up_to_multiple_of
        sizes = {"heads": heads, "qkv_proj_blocksize": qkv_proj_blocksize, "conv1d_kernel_size": conv1d_kernel_size}
        for name, value in {**sizes, "round_proj_up_to_multiple_of": multiple}.items():
            if value is not None and value < 1:
                raise ValueError(f"mlstm: {name} must be at least 1, got {value}")
        if proj_factor <= 0:
            raise ValueError(f"mlstm: proj_factor must be positive, got {proj_factor}")
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
        self.q_proj = LinearHeadwise(inner, inner // qkv_proj_blocksize, bias=bias)
        self.k_proj = LinearHeadwise(inner, inner // qkv_proj_blocksize, bias=bias)
        self.v_proj = LinearHeadwise(inner, inner // qkv_proj_blocksize, bias=bias)
        self.conv1d = CausalConv1d(inner, conv1d_kernel_size)
        self.mlstm_cell = MLSTMCell(inner, heads)
        self.learnable_skip = nn.Parameter(torch.empty(inner))
        self.proj_down = nn.Linear(inner, context.width, bias=bias)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    @classmethod
    def width_multiple(cls, *_: Any, **options: Any) -> int:
        return 1  # the inner width is rounded up to what divides into heads

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        x = x if mask is None else x.masked_fill(~mask[..., None], 0)
        a, z = self.proj_up(x).split(self.inner, dim=-1)
        c, last = self.conv1d.conv(a, mask=mask, state=None if state is None else state["conv"])
        before = None if state is None else (state["C"], state["n"], state["m"])
        i, f = self.gates(c, a)
        H = self.mlstm_cell.heads
        q, k, v = self.q_proj.by_head(c, H), self.k_proj.by_head(c, H), self.v_proj.by_head(a, H)
        h, after = self.mlstm_cell(q, k, v, i, f, mask=mask, state=before)
        y = self.proj_down(((h + self.learnable_skip * c) * F.silu(at_least_fp32(z))).to(x.dtype))
        if state is None:
            return y, None
        return y, {"conv": last, **{name: new.to(state[name].dtype) for name, new in zip("Cnm", after, strict=True)}}

    def gates(
        self, c: Float[Tensor, "B T I"], a: Float[Tensor, "B T I"]
    ) -> tuple[Float[Tensor, "B H T"], Float[Tensor, "B H T"]]:
        """i and f from what q, k and v are made of: W [W_q c, W_k c, W_v a] = (W W_q + W W_k) c + (W W_v) a."""
        cell = self.mlstm_cell
        with no_autocast(c.device):
            weight = torch.cat([at_least_fp32(cell.igate.weight), at_least_fp32(cell.fgate.weight)])
            bias = torch.cat([at_least_fp32(cell.igate.bias), at_least_fp32(cell.fgate.bias)])
            parts = list(zip(weight.split(self.inner, dim=1), (self.q_proj, self.k_proj, self.v_proj), strict=True))
            of_q, of_k, of_v = (projection.before(part) for part, projection in parts)
            for part, projection in parts:
                bias = bias if projection.bias is None else bias + part @ at_least_fp32(projection.bias)
            both = F.linear(at_least_fp32(c), of_q + of_k, bias) + F.linear(at_least_fp32(a), of_v)
            i, f = both.transpose(1, 2).chunk(2, dim=1)
        return i, f

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        H, d = self.mlstm_cell.heads, self.inner // self.mlstm_cell.heads
        C = at_least_fp32(torch.zeros(batch, H, d, d, device=device, dtype=dtype))
        conv = self.conv1d.conv.init_state(batch, device=device, dtype=dtype)
        return {"conv": conv, "C": C, "n": C.new_zeros(batch, H, d), "m": C.new_zeros(batch, H)}

    @torch.no_grad()
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
        self.conv1d.conv.reset_parameters()
        self.mlstm_cell.reset_parameters()

    def param_overrides(self) -> dict[str, ParamOverride]:
        """W_q, W_k and W_v decay like any matrix; the skip weights and the norm's do not."""
        free = dict.fromkeys(("learnable_skip", "mlstm_cell.outnorm.weight"), ParamOverride(decay=False))
        return free | {f"{name}_proj.weight": ParamOverride(decay=True) for name in "qkv"}


class CausalConv1d(nn.Module):
    """Holds a short convolution with SiLU under its official name, `conv1d.conv`."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = ShortConvolution(width, kernel_size, bias=True)


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
        mask: Bool[Tensor, "B T"] | None = None,
        state: MLSTMState | None = None,
    ) -> tuple[Float[Tensor, "B T I"], MLSTMState]:
        """norm(h) in float32 at least, and the state after it."""
        h, after = mlstm(q, k, v, i, f, state, mask=mask)
        with no_autocast(q.device):
            return self.outnorm(h.transpose(1, 2).flatten(2)), after

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Gates that do not look at their input yet: b_f from 3 to 6 over the heads, b_i ~ N(0, 0.01)."""
        for gate in (self.igate, self.fgate):
            nn.init.zeros_(gate.weight)
        nn.init.normal_(self.igate.bias, std=0.1)
        self.fgate.bias.copy_(torch.linspace(3, 6, self.heads))
        self.outnorm.reset_parameters()


class MultiHeadLayerNorm(nn.Module):
    """(x − mean)/std over each head's channels, times 1 + w (xlstm/components/ln.py)."""

    def __init__(self, width: int, heads: int, *, weight: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.heads, self.eps = heads, eps
        self.weight = nn.Parameter(torch.zeros(width)) if weight else None

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        x = at_least_fp32(x).unflatten(-1, (self.heads, -1))
        x = F.layer_norm(x, x.shape[-1:], eps=self.eps).flatten(-2)
        return x if self.weight is None else x * (1 + at_least_fp32(self.weight))

    def reset_parameters(self) -> None:
        """w = 0."""
        if self.weight is not None:
            nn.init.zeros_(self.weight)


class LinearHeadwise(nn.Module):
    """A block-diagonal matrix: each of `heads` groups of channels has its own (components/linear_headwise.py)."""

    def __init__(self, width: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, width // heads, width // heads))
        self.bias = nn.Parameter(torch.empty(width)) if bias else None

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self.by_block(x).permute(1, 2, 0, 3).flatten(2)

    def by_block(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "G B T d"]:
        """The outputs of each block by themselves, one contiguous matrix per block."""
        return _by_block(x, self.weight, self.bias)

    def by_head(self, x: Float[Tensor, "B T D"], heads: int) -> Float[Tensor, "B H T d"]:
        """The outputs of each of `heads` heads, which may have many blocks. Small ones are multiplied as one."""
        blocks, d, _ = self.weight.shape
        weight: Tensor = self.weight
        several = min(blocks // heads, max(1, DENSE // d)) if blocks % heads == 0 else 1
        while blocks % several or (blocks // heads) % several:
            several -= 1
        if several > 1:
            group = weight.view(-1, several, d, d).permute(0, 2, 3, 1)  # (G, out, in, block)
            weight = torch.diag_embed(group).permute(0, 3, 1, 4, 2).reshape(-1, several * d, several * d)
        y = _by_block(x, weight, self.bias)
        if blocks % heads:  # heads share blocks
            return y.permute(1, 2, 0, 3).flatten(2).unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()
        return y.unflatten(0, (heads, -1)).permute(2, 0, 3, 1, 4).flatten(3)

    def before(self, weight: Float[Tensor, "F D"]) -> Float[Tensor, "F D"]:
        """The matrix of `weight` after this one."""
        blocks, d, _ = self.weight.shape
        product = torch.bmm(weight.unflatten(1, (blocks, d)).transpose(0, 1), self.weight.to(weight.dtype))
        return product.transpose(0, 1).flatten(1)


DENSE = 32
"""Blocks narrower than this are put together up to it: products of smaller matrices take longer."""


def _by_block(x: Tensor, weight: Tensor, bias: Tensor | None) -> Float[Tensor, "G B T d"]:
    (B, T, _), (G, d, _) = x.shape, weight.shape
    by_block = x.reshape(B * T, G, d).transpose(0, 1).contiguous()  # its transpose meets gradients in the backward pass
    y = torch.bmm(by_block, weight.mT)
    return (y if bias is None else y + bias.view(G, 1, d)).view(G, B, T, d)

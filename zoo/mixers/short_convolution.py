"""Short causal convolution, one kernel per channel: y_t = act(b + Σ_{j<W} w_j ⊙ x_{t−W+1+j}).

A part of other mixers, which lets each step see the W − 1 before it (fla-org/flash-linear-attention,
fla/modules/conv/short_conv.py; W = 4 and SiLU there).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.ops import precision


class ShortConvolution(nn.Conv1d):
    """Parameters and initial values are those of `nn.Conv1d`: weight (D, 1, W), bias (D) if any.

    The state is the last W − 1 valid inputs, (B, D, W − 1), in the dtype it was made in.
    """

    def __init__(
        self, width: int, kernel_size: int, *, bias: bool = False, activation: Literal["silu"] | None = "silu"
    ) -> None:
        if kernel_size < 1:
            raise ValueError(f"short convolution: kernel size must be at least 1, got {kernel_size}")
        if activation not in (None, "silu"):
            raise ValueError(f"short convolution: activation {activation!r} is neither None nor 'silu'")
        super().__init__(width, width, kernel_size, groups=width, bias=bias)
        self.activation = activation

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: Float[Tensor, "B D P"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D P"] | None]:
        """The convolution, and the next state if given one. Padding must stand on the right."""
        (B, T, D), past = x.shape, self.kernel_size[0] - 1
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0)
        before = x.new_zeros(B, D, past) if state is None else state.to(x.dtype)
        line = torch.cat([before, x.transpose(1, 2)], dim=-1)
        with precision.full(x.device):  # W multiply-adds a channel cost little; unit vectors magnify rounding
            bias = None if self.bias is None else precision.wide(self.bias)
            y = F.conv1d(precision.wide(line), precision.wide(self.weight), bias, groups=D).transpose(1, 2)
            if self.activation == "silu":
                y = F.silu(y)
        if state is None:
            return y, None
        if mask is None:
            last = line[..., T:]
        else:  # the inputs that end at the last valid one: behind n valid steps they start at n
            at = mask.sum(1)[:, None] + torch.arange(past, device=x.device)
            last = line.gather(2, at[:, None].expand(-1, D, -1))
        return y, last.to(state.dtype)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Float[Tensor, "B D P"]:
        """No inputs yet: zeros."""
        return torch.zeros(batch, self.in_channels, self.kernel_size[0] - 1, device=device, dtype=dtype)

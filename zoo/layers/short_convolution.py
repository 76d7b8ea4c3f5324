"""Short causal convolution, one kernel per channel: y_t = act(b + Σ_{j<W} w_j ⊙ x_{t−W+1+j}).

Each step sees the W − 1 before it (fla-org/flash-linear-attention, fla/modules/conv/short_conv.py; W = 4 and SiLU).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.contract import Mask, State
from zoo.layers.tensors import take_steps, zero_padding
from zoo.ops.short_convolution import Unit, short_convolution


class ShortConvolution(nn.Conv1d):
    """Parameters and initial values are those of `nn.Conv1d`: weight (D, 1, W), bias (D) if any.

    The state is the last W − 1 valid inputs, (B, D, W − 1), in the dtype it was made in.
    """

    def __init__(
        self, width: int, kernel_size: int, *, bias: bool = False, activation: Literal["silu"] | None = "silu"
    ) -> None:
        super().__init__(width, width, kernel_size, groups=width, bias=bias)
        self.activation = activation

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Mask | None = None,
        state: Float[Tensor, "B D P"] | None = None,
        unit: Unit | None = None,
        narrow: bool = False,
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D P"] | None]:
        """The convolution, and the next state if given one. Padding must stand on the right.

        `unit` normalises the result by head. It is in float32 at least; if `narrow`, or where the weights have it as
        well, rounded to the dtype of x.
        """
        before = None if state is None else {"own": state}
        narrow = narrow or x.dtype is self.weight.dtype
        y, new = side_by_side([self], x, ["own"], mask=mask, state=before, unit=unit, narrow=narrow)
        return y, new.get("own")

    def last(
        self, x: Float[Tensor, "B T D"], mask: Mask | None, state: Float[Tensor, "B D P"]
    ) -> Float[Tensor, "B D P"]:
        """The inputs that end at the last valid one."""
        past, before = self.kernel_size[0] - 1, state.to(x.dtype).mT
        if mask is None:
            line = torch.cat([before, x[:, max(0, x.shape[1] - past) :]], dim=1)
            return line[:, line.shape[1] - past :].mT.to(state.dtype)
        at = mask.sum(1)[:, None] + torch.arange(past, device=x.device)  # behind n valid steps they start at n
        return take_steps(torch.cat([before, zero_padding(x, mask)], dim=1), at).mT.to(state.dtype)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Float[Tensor, "B D P"]:
        """No inputs yet: zeros."""
        return torch.zeros(batch, self.in_channels, self.kernel_size[0] - 1, device=device, dtype=dtype)


def side_by_side(
    convolutions: Sequence[ShortConvolution],
    x: Float[Tensor, "B T _"],
    names: Sequence[str],
    *,
    mask: Mask | None = None,
    state: State | None = None,
    unit: Unit | None = None,
    narrow: bool = True,
) -> tuple[Float[Tensor, "B T _"], State]:
    """Several convolutions of one width and activation over features side by side, run as one.

    See `ShortConvolution.forward`. `names` are their keys in the mixer's state, of which the next is returned.
    """
    first, biased = convolutions[0], convolutions[0].bias is not None
    before = None if state is None else torch.cat([state[name].to(x.dtype).mT for name in names], dim=-1)
    y = short_convolution(
        x,
        torch.cat([conv.weight[:, 0] for conv in convolutions]),
        torch.cat([conv.bias for conv in convolutions if conv.bias is not None]) if biased else None,
        before,
        mask,
        silu=first.activation == "silu",
        unit=unit,
        narrow=narrow,
    )
    if state is None:
        return y, {}
    parts = x.split([conv.in_channels for conv in convolutions], dim=-1)
    every = zip(names, convolutions, parts, strict=True)
    return y, {name: conv.last(part, mask, state[name]) for name, conv, part in every}

"""Projections of a mixer's inputs, each through a short causal convolution where there are any: x W, or act(conv(x W)).

As the layers of flash-linear-attention have them (fla/layers/gsa.py, hgrn.py, hgrn2.py).
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.contract import Mask, Mixer, State
from zoo.layers.linear import fan_in_, joined, residual_scale
from zoo.layers.norms import HeadNorm, RMSNorm
from zoo.layers.short_convolution import ShortConvolution, side_by_side


class ProjectedMixer(Mixer):
    """Base of the mixers that read x W_q, x W_k and others, named by letters.

    State: the last inputs (B, channels, conv_size − 1) of each convolution, if any, under its letter.
    """

    o_proj: nn.Linear
    letters: str = ""
    convolved: bool = False

    def add_projections(
        self, width: int, to: dict[str, int], conv_size: int | None, *, bias: bool, activation: Literal["silu"] | None
    ) -> None:
        """`q_proj` and so on, from `width` features `to` these; with a `conv_size` `q_conv1d` and so on behind them."""
        self.letters, self.convolved = "".join(to), conv_size is not None
        for letter, features in to.items():
            self.add_module(f"{letter}_proj", nn.Linear(width, features, bias=False))
            if conv_size is not None:
                convolution = ShortConvolution(features, conv_size, bias=bias, activation=activation)
                self.add_module(f"{letter}_conv1d", convolution)

    def project(
        self, x: Float[Tensor, "B T D"], mask: Mask | None, state: State | None
    ) -> tuple[list[Float[Tensor, "B T _"]], State]:
        """What each projection gives, in order, and the next state of the convolutions."""
        projections: list[Any] = [self.get_submodule(f"{letter}_proj") for letter in self.letters]
        features, new = joined(x, *(projection.weight for projection in projections)), State()
        if self.convolved:
            features, new = side_by_side(self._convolutions, features, self.letters, mask=mask, state=state)
        return list(features.split([projection.out_features for projection in projections], dim=-1)), new

    @property
    def _convolutions(self) -> list[Any]:
        return [self.get_submodule(f"{letter}_conv1d") for letter in self.letters if self.convolved]

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {
            letter: convolution.init_state(batch, device=device, dtype=dtype)
            for letter, convolution in zip(self.letters, self._convolutions, strict=False)
        }

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 1/fan_in), W_o scaled by 1/√(2·depth); PyTorch's convolutions; norm weights one."""
        for part in self.children():
            if isinstance(part, nn.Linear):
                fan_in_(part, residual_scale(depth) if part is self.o_proj else 1.0)
            elif isinstance(part, ShortConvolution | HeadNorm | RMSNorm):
                part.reset_parameters()

"""Absolute positions, which join the embedding before the first block: modules from (x, positions) to x."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from zoo.layers.linear import fan_in_, table_
from zoo.types import LayerContext, Unsupported


class Absolute(nn.Module):
    """Base of the absolute encodings, which adds nothing. `limit` is the number of positions it knows; None: no end."""

    limit: int | None = None

    def __init__(self, context: LayerContext) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "#B T"]) -> Float[Tensor, "B T D"]:
        """x with its positions (0 for the first step of a sequence).

        Raises:
            Unsupported: the sequence goes past `limit`.
        """
        return x

    def check(self, positions: Int[Tensor, "#B T"]) -> None:
        """Refuse positions from `limit` on, rather than cut or repeat."""
        if self.limit is None:
            return
        known = positions.device.type != "meta"
        if positions.shape[1] > self.limit or (known and int(positions.max()) >= self.limit):
            raise Unsupported(f"{type(self).__name__.lower()} positions end at {self.limit}; the sequence goes further")


class Learned(Absolute):
    """x + P[t], one free vector per position up to some length (Gehring et al. 2017, arXiv:1705.03122, section 3.1)."""

    def __init__(self, context: LayerContext) -> None:
        super().__init__(context)
        self.limit = context.length
        self.table = nn.Parameter(torch.empty(context.length, context.width))
        table_(self.table)

    def forward(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "#B T"]) -> Float[Tensor, "B T D"]:
        self.check(positions)
        return x + F.embedding(positions, self.table)


class Sinusoidal(Absolute):
    """x + PE, PE[t, 2i] = sin(t / 10000^{2i/D}), PE[t, 2i+1] = cos(same) (Vaswani et al. 2017, section 3.5).

    Sines and cosines interleave, as in the paper; fairseq concatenates them.
    """

    def __init__(self, context: LayerContext) -> None:
        super().__init__(context)
        self.width = context.width

    def forward(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "#B T"]) -> Float[Tensor, "B T D"]:
        return x + sinusoid(positions, self.width).to(x.dtype)


def sinusoid(positions: Int[Tensor, "#B T"], width: int) -> Float[Tensor, "B T D"]:
    """PE of `Sinusoidal` at `positions`, in float64."""
    even = torch.arange(0, width, 2, device=positions.device, dtype=torch.float64)
    angle = positions[..., None].double() / 10000 ** (even / width)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)[..., :width]


class Scalar(Absolute):
    """x + s_t w with s_t = (t + 1)/(L + 1) in (0, 1), one number for each position, and a learned direction w."""

    def __init__(self, context: LayerContext) -> None:
        super().__init__(context)
        self.limit = context.length
        self.w = nn.Parameter(torch.empty(context.width))
        table_(self.w)

    def forward(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "#B T"]) -> Float[Tensor, "B T D"]:
        self.check(positions)
        assert self.limit is not None
        s = (positions[..., None] + 1) / (self.limit + 1)
        return x + s.to(x.dtype) * self.w


class Concatenated(Absolute):
    """W [x; PE] + b: sinusoids set beside the embedding instead of added to it, and projected back to D features.

    `features` is the width of PE; D by default.
    """

    def __init__(self, context: LayerContext, *, features: int | None = None) -> None:
        super().__init__(context)
        self.features = context.width if features is None else features
        if self.features < 1:
            raise ValueError(f"concatenated positions need at least one feature, got {features}")
        self.project = nn.Linear(context.width + self.features, context.width)
        fan_in_(self.project)

    def forward(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "#B T"]) -> Float[Tensor, "B T D"]:
        beside = sinusoid(positions, self.features).to(x.dtype).expand(*x.shape[:2], -1)
        return self.project(torch.cat([x, beside], dim=-1))


class Randomised(Absolute):
    """Positions drawn from a longer range (Ruoss et al. 2023, arXiv:2305.16843, section 3).

    In training, T of the positions below `most` are drawn without replacement for each batch, sorted, and given to the
    encoding `of`. In evaluation, where the paper draws too, positions are spread evenly, t·⌊most / L⌋, so that
    evaluation is repeatable and decoding can continue.
    """

    def __init__(self, context: LayerContext, *, of: str = "sinusoidal", most: int = 2048) -> None:
        super().__init__(context)
        kind = ABSOLUTE.get(of, Absolute)
        if kind in (Randomised, Absolute):
            raise ValueError(f"randomised positions draw for an absolute encoding, not for {of!r}")
        if most < context.length:
            raise ValueError(f"randomised: {most} positions are fewer than the {context.length} steps of a sequence")
        self.most, self.stride = most, most // context.length
        self.limit = -(-most // self.stride)
        self.of: Absolute = kind(LayerContext(width=context.width, length=most))

    def forward(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "#B T"]) -> Float[Tensor, "B T D"]:
        self.check(positions)
        if self.training:
            drawn = torch.randperm(self.most, device=positions.device)[: x.shape[1]].sort().values
            return self.of(x, drawn.expand(positions.shape))
        return self.of(x, positions * self.stride)


ABSOLUTE: dict[str, Any] = {
    "none": Absolute,
    "learned": Learned,
    "sinusoidal": Sinusoidal,
    "scalar": Scalar,
    "concatenated": Concatenated,
    "randomised": Randomised,
}
"""By the names that a Recipe has for them."""

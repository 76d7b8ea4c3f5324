"""Absolute positions added to (or left out of) the embedding. Each is a module from positions (B, T) to (B, T, D)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zoo.initialise import table_
from zoo.lookup import Table
from zoo.terms import Site, Unsupported

POSITIONS = Table(
    "position encoding",
    {
        "none": "zoo.positions:NoPositions",
        "learned": "zoo.positions:Learned",
        "sinusoidal": "zoo.positions:Sinusoidal",
    },
)


class NoPositions(nn.Module):
    """Nothing is added."""

    def __init__(self, site: Site) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        return x


class Learned(nn.Module):
    """x + P[t], one free vector per position up to some length (Gehring et al. 2017, arXiv:1705.03122, section 3.1)."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(site.length, site.width))
        table_(self.table)

    def forward(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Add the vectors of `positions`.

        Raises:
            Unsupported: the sequence is longer than the table.
        """
        length = len(self.table)
        if x.shape[1] > length or (positions.device.type != "meta" and int(positions.max()) >= length):
            raise Unsupported(f"learned positions end at {length}; the sequence goes further")
        return x + self.table[positions]


class Sinusoidal(nn.Module):
    """x + PE, PE[t, 2i] = sin(t / 10000^{2i/D}), PE[t, 2i+1] = cos(same) (Vaswani et al. 2017, section 3.5).

    Sines and cosines interleave, as in the paper; fairseq concatenates them.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.width = site.width

    def forward(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        even = torch.arange(0, self.width, 2, device=x.device, dtype=torch.float64)
        angle = positions[..., None].double() / 10000 ** (even / self.width)
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)[..., : self.width]
        return x + table.to(x.dtype)

"""Residual wiring: where the norm stands around a mixer, and what the stream between blocks holds.

A wiring wraps one sublayer f. `open` turns the embedding into the stream that runs through the stack, `close` turns the
stream into the stack's output; where the stream is the residual itself both do nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from zoo.contract import Mixer, State
from zoo.lookup import Table

WIRINGS = Table("wiring", {"pre": "zoo.blocks:PreNorm", "post": "zoo.blocks:PostNorm", "plain": "zoo.blocks:Plain"})

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer": lambda width: nn.LayerNorm(width),
    "layer_eps6": lambda width: nn.LayerNorm(width, eps=1e-6),
    "none": lambda width: nn.Identity(),
}


def make_norm(kind: str, width: int) -> nn.Module:
    """The norm called `kind` over `width` features.

    Raises:
        ValueError: unknown.
    """
    if kind not in NORMS:
        raise ValueError(f"unknown norm {kind!r}; known: {', '.join(NORMS)}")
    return NORMS[kind](width)


class Wiring(nn.Module):
    """One sublayer f in its residual wiring."""

    final_norm: ClassVar[bool] = False
    """Whether the stack needs one more norm at its end."""

    def __init__(self, inner: Mixer, width: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.norm = make_norm(norm, width)
        self.inner = inner
        self.dropout = nn.Dropout(dropout)

    @staticmethod
    def open(x: Tensor) -> Any:
        """The stream at the bottom of the stack."""
        return x

    @staticmethod
    def close(stream: Any) -> Tensor:
        """The stack's output, before a final norm."""
        return stream

    def forward(
        self, stream: Any, *, mask: Tensor | None = None, state: State | None = None
    ) -> tuple[Any, State | None]:
        raise NotImplementedError


class PreNorm(Wiring):
    """x + f(norm(x)) (Xiong et al. 2020, arXiv:2002.04745, table 1, right)."""

    final_norm = True

    def forward(
        self, stream: Tensor, *, mask: Tensor | None = None, state: State | None = None
    ) -> tuple[Tensor, State | None]:
        y, state = self.inner(self.norm(stream), mask=mask, state=state)
        return stream + self.dropout(y), state


class PostNorm(Wiring):
    """norm(x + f(x)) (Vaswani et al. 2017, section 3.1)."""

    def forward(
        self, stream: Tensor, *, mask: Tensor | None = None, state: State | None = None
    ) -> tuple[Tensor, State | None]:
        y, state = self.inner(stream, mask=mask, state=state)
        return self.norm(stream + self.dropout(y)), state


class Plain(Wiring):
    """f(x), without norm and without residual: the classic stack of recurrent layers."""

    def __init__(self, inner: Mixer, width: int, norm: str, dropout: float) -> None:
        super().__init__(inner, width, "none", dropout)

    def forward(
        self, stream: Tensor, *, mask: Tensor | None = None, state: State | None = None
    ) -> tuple[Tensor, State | None]:
        y, state = self.inner(stream, mask=mask, state=state)
        return self.dropout(y), state

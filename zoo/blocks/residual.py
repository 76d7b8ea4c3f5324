"""Residual types: where the norm stands around a mixer, and what the stream between blocks holds.

A residual type wraps one sublayer f. `open` turns the embedding into the stream that runs through the stack, `close`
turns the stream into the stack's output. Where the stream is the residual itself, they add the final norm only.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.contract import Mask, Mixer, State
from zoo.layers.norms import LayerNorm, RMSNorm, make_norm, summed
from zoo.layers.side_by_side import Sum
from zoo.registry import Table


class Residual(nn.Module):
    """One sublayer f on the stream: `read` gives f its input, `write` takes its result y back into the stream."""

    final_norm: ClassVar[bool] = False
    """Whether the stack needs one more norm at its end."""
    norm_first: ClassVar[bool] = False
    """Whether f reads the norm's output."""
    normed: ClassVar[bool] = True
    """Whether the sublayer has a norm of its own."""

    def __init__(self, inner: Mixer, width: int, norm: str, dropout: float, depth: int) -> None:
        super().__init__()
        self.depth, self.norm = depth, make_norm(norm if self.normed else "none", width)
        if isinstance(self.norm, LayerNorm | RMSNorm):
            self.norm.feeds_matmul_only = self.norm_first and inner.feeds_matmul_only
        self.inner = inner
        self.dropout = nn.Dropout(dropout)

    @staticmethod
    def arrange(inner: list[Mixer]) -> list[Mixer]:
        """The sublayers that a block makes of its mixer and channel mixer."""
        return inner

    @staticmethod
    def gain(depth: int) -> float | None:
        """`LayerContext.gain` in a stack of `depth` blocks."""
        return None

    @staticmethod
    def open(x: Tensor) -> Any:
        """The stream at the bottom of the stack."""
        return x

    @staticmethod
    def close(stream: Any, norm: nn.Module) -> Tensor:
        """The stack's output, from the stream at its top and the final norm."""
        return norm(stream)

    def read(self, stream: Any) -> tuple[Tensor, Any]:
        """The input of f, and the stream for `write`."""
        return stream, stream

    def write(self, stream: Any, y: Tensor) -> Any:
        """The stream after f, whose result is y."""
        raise NotImplementedError

    def forward(
        self, stream: Any, *, mask: Mask | None, state: State | None, shared_context: dict[str, Any]
    ) -> tuple[Any, State | None]:
        """The stream after this sublayer, and the sublayer's next state."""
        (x, stream), extra = self.read(stream), {}
        if self.inner.shared_context:
            shared_context["residual"] = stream if isinstance(stream, Tensor) else x
            extra = {"shared_context": shared_context}
        y, state = self.inner(x, mask=mask, state=state, **extra)
        return self.write(stream, self.dropout(y)), state


class PreNorm(Residual):
    """x + f(norm(x)) (Xiong et al. 2020, arXiv:2002.04745, table 1, right).

    Between sublayers the stream is x and the y to be added to it, which the next norm does in the same pass.
    """

    final_norm = True
    norm_first = True

    @staticmethod
    def open(x: Tensor) -> tuple[Tensor, Tensor | None]:
        return x, None

    @staticmethod
    def close(stream: tuple[Tensor, Tensor | None], norm: nn.Module) -> Tensor:
        return summed(norm, *stream)[1]

    def read(self, stream: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
        x, normed = summed(self.norm, *stream)
        return normed, x

    def write(self, stream: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        return stream, y


class PostNorm(Residual):
    """norm(x + f(x)) (Vaswani et al. 2017, section 3.1)."""

    def write(self, stream: Tensor, y: Tensor) -> Tensor:
        return summed(self.norm, stream, y)[1]


class Plain(Residual):
    """f(x), without norm and without residual: the classic stack of recurrent layers."""

    normed = False

    def write(self, stream: Tensor, y: Tensor) -> Tensor:
        return y


class Sandwich(PreNorm):
    """x + norm₂(f(norm₁(x))) (Ding et al. 2021, CogView, arXiv:2105.13290, section 2.4)."""

    def __init__(self, inner: Mixer, width: int, norm: str, dropout: float, depth: int) -> None:
        super().__init__(inner, width, norm, dropout, depth)
        self.norm_out = make_norm(norm, width)

    def write(self, stream: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        return stream, self.norm_out(y)


class Reordered(PreNorm):
    """x + norm(f(x)) (OLMo 2, arXiv:2501.00656, section 3.2; Liu et al. 2022, Swin V2, arXiv:2111.09883)."""

    norm_first = False

    def read(self, stream: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
        x = stream[0] if stream[1] is None else stream[0] + stream[1]
        return x, x

    def write(self, stream: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        return stream, self.norm(y)


class DeepNorm(Residual):
    """norm(α x + f(x)) with α = (2N)^{1/4}, β = (8N)^{−1/4} for N blocks (Wang et al. 2022, arXiv:2203.00555)."""

    @staticmethod
    def gain(depth: int) -> float:
        return (8 * depth) ** -0.25

    def write(self, stream: Tensor, y: Tensor) -> Tensor:
        return self.norm((2 * self.depth) ** 0.25 * stream + y)


class TwoStreams(Residual):
    """Base of the types with two streams, both of which start as the embedding."""

    final_norm = True

    @staticmethod
    def open(x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class ResidualDual(TwoStreams):
    """Two streams: x ← norm(x + f(x)) and r ← r + f(x), from x = r = the embedding; at the end x + norm(r).

    ResiDual (Xie et al. 2023, arXiv:2304.14802, section 3.1).
    """

    @staticmethod
    def close(stream: tuple[Tensor, Tensor], norm: nn.Module) -> Tensor:
        x, r = stream
        return x + norm(r)

    def read(self, stream: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return stream[0], stream

    def write(self, stream: tuple[Tensor, Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
        x, r = stream
        return summed(self.norm, x, y)[1], r + y


class ReZero(Residual):
    """x + a f(x), no norm, with a learned number a from zero (Bachlechner et al. 2020, arXiv:2003.04887)."""

    normed = False

    def __init__(self, inner: Mixer, width: int, norm: str, dropout: float, depth: int) -> None:
        super().__init__(inner, width, norm, dropout, depth)
        self.a = nn.Parameter(torch.zeros(()))

    def write(self, stream: Tensor, y: Tensor) -> Tensor:
        return stream + self.a * y


class Parallel(PreNorm):
    """x + f(norm(x)) + g(norm(x)): mixer and channel mixer side by side (Wang & Komatsuzaki 2021, GPT-J)."""

    @staticmethod
    def arrange(inner: list[Mixer]) -> list[Mixer]:
        return [Sum(inner)] if len(inner) > 1 else inner


class Reversible(TwoStreams):
    """Two streams that feed each other: y₁ = x₁ + f(norm(x₂)), y₂ = x₂ + g(norm(y₁)); their mean at the end.

    Reformer (Kitaev et al. 2020, arXiv:2001.04451, section 3). The streams could be recomputed backwards to save
    memory; here they are kept.
    """

    norm_first = True

    @staticmethod
    def close(stream: tuple[Tensor, Tensor], norm: nn.Module) -> Tensor:
        return norm((stream[0] + stream[1]) / 2)

    def read(self, stream: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.norm(stream[1]), stream

    def write(self, stream: tuple[Tensor, Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
        older, newer = stream
        return newer, older + y


RESIDUALS = Table(
    "residual type",
    {
        "pre": PreNorm,
        "post": PostNorm,
        "plain": Plain,
        "sandwich": Sandwich,
        "reordered": Reordered,
        "deepnorm": DeepNorm,
        "residual_dual": ResidualDual,
        "rezero": ReZero,
        "parallel": Parallel,
        "reversible": Reversible,
    },
)
"""By the names that a Recipe has for them."""

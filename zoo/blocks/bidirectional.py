"""The wrapper that lets a causal mixer look both ways."""

import dataclasses
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from zoo.contract import Mask, Mixed, Mixer, State
from zoo.layers.tensors import reverse


class Bidirectional(Mixer):
    """Two mixers of one kind over the same input, one in reverse time, summed: y = f(x) + reverse(g(reverse(x))).

    Only the valid prefix of a row is reversed, so padding stays at the end for both.
    """

    def __init__(self, forward: Mixer, backward: Mixer) -> None:
        nn.Module.__init__(self)
        self.ahead, self.back = forward, backward
        own = dataclasses.replace(forward.traits, causal="no", bidirectional=True, resumable=False)
        self.traits = own  # type: ignore[misc]  # its own, as they depend on what it wraps
        self.shared_context = forward.shared_context  # type: ignore[misc]
        self.feeds_matmul_only = forward.feeds_matmul_only  # type: ignore[misc]

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Mask | None = None,
        state: State | None = None,
        shared_context: dict[str, Any] | None = None,
    ) -> Mixed:
        own: list[dict[str, Any]] = [{}, {}]
        if shared_context is not None:
            own = [{"shared_context": shared_context.setdefault(way, {})} for way in ("ahead", "back")]
            residual = shared_context.get("residual", x)
            for each, turned in zip(own, (residual, reverse(residual, mask)), strict=True):
                each["shared_context"]["residual"] = turned
        ahead, _ = self.ahead(x, mask=mask, **own[0])
        back, _ = self.back(reverse(x, mask), mask=mask, **own[1])
        return ahead + reverse(back, mask), None

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        for mixer in (self.ahead, self.back):
            mixer.reset_parameters(layer=layer, depth=depth)

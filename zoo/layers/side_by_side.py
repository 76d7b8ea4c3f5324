"""Mixers side by side."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.contract import Mask, Mixed, Mixer, State, combine


class Sum(Mixer):
    """Several mixers over one input, added up."""

    def __init__(self, parts: list[Mixer]) -> None:
        nn.Module.__init__(self)
        self.parts: Any = nn.ModuleList(parts)
        self.traits = combine([part.traits for part in parts])  # type: ignore[misc]  # its own, as they depend on the parts
        self.feeds_matmul_only = all(part.feeds_matmul_only for part in parts)  # type: ignore[misc]
        self.shared_context = any(part.shared_context for part in parts)  # type: ignore[misc]

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Mask | None = None,
        state: State | None = None,
        shared_context: dict[str, Any] | None = None,
    ) -> Mixed:
        y, new = torch.zeros_like(x), {}
        for name, part in self.parts.named_children():
            extra = {"shared_context": shared_context} if part.shared_context else {}
            own, new[name] = part(x, mask=mask, state=None if state is None else state[name], **extra)
            y = y + own
        return y, None if state is None else new

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        parts = self.parts.named_children()
        return {name: part.init_state(batch, device=device, dtype=dtype) for name, part in parts}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        for part in self.parts:
            part.reset_parameters(layer=layer, depth=depth)

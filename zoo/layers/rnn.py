"""Mixers made of one of torch's recurrent layers: rows of several lengths, states, initial weights."""

from contextlib import nullcontext
from functools import cache
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, State, Traits
from zoo.ops.flops import uncounted
from zoo.ops.kernel_log import log_kernel
from zoo.ops.precision import no_autocast


@cache
def runs_in_bfloat16() -> bool:
    """Whether torch's recurrent layers do under autocast on this CPU; without AVX-512 they raise."""
    with uncounted(), torch.enable_grad(), torch.random.fork_rng(devices=[]), torch.autocast("cpu", torch.bfloat16):
        try:
            nn.LSTM(16, 16)(torch.zeros(1, 1, 16))
        except RuntimeError:
            return False
    return True


class Recurrent(Mixer):
    """Base of the mixers around a `cell` of torch, held under `name`. State: one (B, D) for each of `states`."""

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    cell: ClassVar[type[nn.LSTM] | type[nn.GRU]]
    name: ClassVar[str]
    states: ClassVar[str]

    def __init__(self, context: LayerContext) -> None:
        super().__init__(context)
        self.add_module(self.name, self.cell(context.width, context.width, batch_first=True))

    @property
    def rnn(self) -> Any:
        return getattr(self, self.name)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        log_kernel(self.name, "torch")
        exact = x.device.type == "cpu" and not runs_in_bfloat16()
        x = x.to(self.rnn.weight_ih_l0.dtype) if exact else x
        with no_autocast(x.device) if exact else nullcontext():
            if state is None:
                return self.rnn(x)[0], None
            before = tuple(state[name].to(x.dtype)[None] for name in self.states)
            y, after = self._run(x, mask, before)
        return y, {name: new[0].to(state[name].dtype) for name, new in zip(self.states, after, strict=True)}

    def _run(
        self, x: Float[Tensor, "B T D"], mask: Mask | None, before: tuple[Float[Tensor, "1 B D"], ...]
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "1 B D"], ...]]:
        """The outputs, and the state after each row's last valid step; a row without one keeps its state."""
        start = before if len(before) > 1 else before[0]
        if mask is None:
            y, last = self.rnn(x, start)
            return y, last if len(before) > 1 else (last,)
        lengths = mask.sum(1)
        rows = nn.utils.rnn.pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        out, last = self.rnn(rows, start)
        y = nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])[0]
        after, some = last if len(before) > 1 else (last,), (lengths > 0)[:, None]
        return y, tuple(torch.where(some, new, old) for new, old in zip(after, before, strict=True))

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {name: torch.zeros(batch, self.rnn.hidden_size, device=device, dtype=dtype) for name in self.states}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Input weights Xavier, recurrent weights orthogonal per gate, biases zero."""
        own = dict(self.rnn.named_parameters())
        nn.init.xavier_uniform_(own["weight_ih_l0"])
        for gate in own["weight_hh_l0"].data.split(self.rnn.hidden_size):
            nn.init.orthogonal_(gate)
        nn.init.zeros_(own["bias_ih_l0"])
        nn.init.zeros_(own["bias_hh_l0"])

    def param_overrides(self) -> dict[str, ParamOverride]:
        """Weight decay on both matrices."""
        return {f"{self.name}.{weight}": ParamOverride(decay=True) for weight in ("weight_ih_l0", "weight_hh_l0")}

"""What mixers made of torch's recurrent layers share: running them over rows of several lengths, initial weights."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.contract import Mask, ParamOverride
from zoo.ops.kernel_log import log_kernel


def run(
    rnn: nn.RNNBase, x: Float[Tensor, "B T D"], mask: Mask | None, state: tuple[Float[Tensor, "B D"], ...] | None
) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "B D"], ...]]:
    """The outputs of a recurrent layer and, given a state, the state after each row's last valid step.

    A row without a valid step keeps its state. Padding must stand on the right.
    """
    log_kernel(rnn.mode.lower(), "torch")
    if state is None:
        return rnn(x)[0], ()
    before = tuple(old.to(x.dtype)[None] for old in state)
    start = before if len(before) > 1 else before[0]
    if mask is None:
        y, last = rnn(x, start)
    else:
        lengths = mask.sum(1)
        rows = nn.utils.rnn.pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        out, last = rnn(rows, start)
        y = nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])[0]
    after = last if len(before) > 1 else (last,)
    if mask is not None:
        some = (lengths > 0)[:, None]
        after = tuple(torch.where(some, new, old) for new, old in zip(after, before, strict=True))
    return y, tuple(new[0].to(old.dtype) for new, old in zip(after, state, strict=True))


def initialise(rnn: nn.RNNBase) -> None:
    """Input weights Xavier, recurrent weights orthogonal per gate, biases zero."""
    own = dict(rnn.named_parameters())
    nn.init.xavier_uniform_(own["weight_ih_l0"])
    for gate in own["weight_hh_l0"].data.split(rnn.hidden_size):
        nn.init.orthogonal_(gate)
    nn.init.zeros_(own["bias_ih_l0"])
    nn.init.zeros_(own["bias_hh_l0"])


def decaying(name: str) -> dict[str, ParamOverride]:
    """Weight decay on both matrices of the recurrent layer called `name`."""
    return {f"{name}.{weight}": ParamOverride(decay=True) for weight in ("weight_ih_l0", "weight_hh_l0")}

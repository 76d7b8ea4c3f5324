"""Gate of decoding: a model that claims to go on from a state does, and the state holds all that is carried."""

import math
from typing import Any

import torch
from torch import Tensor

from harness.gates.hidden import reachable
from harness.gates.measure import relative, result, worst
from harness.gates.registry import IN_TIME, gate
from harness.gates.subject import Subject
from harness.records.record import Gate
from tasks.parts import rows
from zoo import size as sizing
from zoo.contract import Batch, State, leaves, state_bytes

STEPS = 12
"""Decoded one by one behind a context of drawn length."""


@gate("decoding gives other outputs, or carries more than is shown", roles=IN_TIME)
def decodes(subject: Subject) -> Gate:
    """Two sequences decoded in turn, each from its own state, against the logits of one pass; and the state's bytes.

    Taking turns shows what is carried outside of the states. The bytes are those after as many steps as the record's.
    """
    precise = subject.float64
    about = "largest relative difference between decoding and one pass"
    if not subject.model.traits.resumable or subject.task.shape.vocab is None:
        return result(0.0, precise.limit, f"{about}: the model does not claim to decode")
    batch, writes = rows(subject.batch(), slice(0, 2)).tensors(precise.device), subject.model.role == "seq2seq"
    tokens = batch.decoder_inputs if writes else batch.inputs
    length = int(tokens.shape[1] if writes or batch.mask is None else batch.mask.sum(1).min())
    begin = subject.draw.randint(0, max(0, length - STEPS))
    whole = precise(batch)[:, :length]
    decoded = [
        _Decoded(precise.model, row[None, :length], _read(precise.model, rows(batch, slice(i, i + 1))))
        for i, row in enumerate(tokens)
    ]
    for each in decoded:
        each.extend(begin)
    for _ in range(min(STEPS, length - begin)):
        for each in decoded:
            each.extend(1)
    for each in decoded:
        each.extend(length)
    found = max(relative(torch.cat(each.logits, 1)[0], row) for each, row in zip(decoded, whole, strict=True))
    same = result(found, precise.limit, f"{about}, {precise.about}")
    return same if writes else worst(same, _carried(subject))


def _read(model: Any, batch: Batch) -> State:
    """The state from which a sequence is decoded: after the source, if there is one."""
    state: State = model.read(batch.inputs, batch.mask) if model.role == "seq2seq" else model.init_state(1)
    return state


class _Decoded:
    """A sequence of tokens (1, T) on its way through a model, and the logits so far."""

    def __init__(self, model: Any, tokens: Tensor, state: State) -> None:
        self.model, self.left, self.state = model, tokens, state
        self.logits: list[Tensor] = []

    def extend(self, steps: int) -> None:
        now, self.left = self.left[:, :steps], self.left[:, steps:]
        if now.shape[1]:
            logits, self.state = self.model.extend(now, self.state)
            self.logits.append(logits)


def _carried(subject: Subject) -> Gate:
    """The most that the state holds at some drawn steps and the record's last, over what the record says."""
    about = "bytes carried from step to step beyond those shown, relative"
    shown = subject.size.state_bytes
    if shown is None:
        return result(math.inf, 0.0, f"{about}: the record shows none")
    model, shape = subject.model, subject.task.shape
    steps = sizing.decoded_length("lm", shape)
    assert shape.vocab is not None
    tokens = torch.randint(shape.vocab, (1, steps), generator=subject.generator()).to(subject.device)
    state, most, ends = model.init_state(1), 0, {*subject.draw.sample(range(1, steps), min(4, steps - 1)), steps}
    for part in torch.tensor_split(tokens, sorted(ends)[:-1], dim=1):
        _, state = model.extend(part, state)
        most = max(most, _bytes(state))
    return result(max(0.0, most / max(1, shown) - 1), 0.0, about)


def _bytes(state: State) -> int:
    """Bytes of a state's tensors, and of whatever else it holds, four for a number."""
    declared = sum(tensor.numel() for tensor in leaves(state))
    return state_bytes(state) + 4 * max(0, sum(part.count for part in reachable(state).values()) - declared)

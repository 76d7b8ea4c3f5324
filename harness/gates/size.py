"""Gates of size: all that is trained is counted, and the count is what all rows are matched to."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.gates.float64 import undone
from harness.gates.hidden import Inventory, inventory, numbers
from harness.gates.measure import result
from harness.gates.question import asked
from harness.gates.registry import LAST, gate
from harness.gates.scores import weights_alone
from harness.gates.subject import Subject
from harness.records.record import Gate
from zoo import size as sizing
from zoo.blocks.heads import Classifier, LanguageModel, MaskedLanguageModel, Reconstructor, Retriever, Seq2Seq
from zoo.contract import Mixer, Model, State, Traits
from zoo.types import Part, Recipe, Role, Shape

HIDDEN = 0.05
"""Of the declared parameters. The running means of a batch norm are a few per cent of a narrow model; no more than the
tolerance sizes are matched within is to be had from less."""


@gate("more is trained than is counted", when=LAST)
def declared_size(subject: Subject) -> Gate:
    """Numbers that training changed, or gradients reach, and that the declared size leaves out; over the declared.

    Where the saved weights alone give the same outputs, attributes that are no parameters and no buffers do not matter,
    but for those that a copy would share.
    """
    watch, model = subject.watch, subject.model
    shared_only = (subject.results.get("weights_alone") or weights_alone(subject)).passed
    now = inventory(model)
    hidden = max(_changed(watch.before, then, shared_only) for then in (watch.after, now)) + _leaves(subject)
    names = {name: tuple(p.shape) for name, p in model.named_parameters()}
    hidden += sum(math.prod(shape) for name, shape in names.items() if watch.names.get(name) != shape)
    count = subject.match.count if subject.match else "non_embedding"
    declared = sizing.parameters(model)
    inside = subject.size.params_non_embedding
    hidden += max(abs(numbers(model) - subject.size.params), abs(numbers(model.backbone) - inside))
    if count != "total":
        hidden += _outside(subject)
    base = sizing.parameters(model, count) or declared
    return result(hidden / max(1, base), HIDDEN, "numbers trained but not in the declared size, relative to it")


def _changed(before: Inventory, now: Inventory, shared_only: bool) -> int:
    """Numbers in tensors that are new or other than before training, and that are no trainable parameters."""
    return sum(
        part.count
        for name, part in now.items()
        if not (part.kind == "parameter" and part.trainable)
        and not (part.kind == "attribute" and shared_only)
        and (name not in before or before[name].sum != part.sum)
    )


def _leaves(subject: Subject) -> int:
    """Numbers in tensors that a training step's gradient reaches and that are no parameters of the model."""
    model = subject.model
    batch = subject.task.batch("train", 0, subject.seed, size=2).tensors(subject.device)
    with undone(subject.model, training=True), torch.random.fork_rng(), torch.enable_grad():
        value = subject.loss(model(asked(batch)), batch)
    own = {id(p) for p in model.parameters()}
    return sum(leaf.numel() for leaf in leaves(value) if id(leaf) not in own)


def leaves(value: Tensor) -> list[Tensor]:
    """The tensors at the ends of a graph that gather gradients, each once."""
    found: dict[int, Tensor] = {}
    seen, open_ = set(), [value.grad_fn]
    while open_:
        node = open_.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor):
            found[id(leaf)] = leaf
        open_ += [after for after, _ in node.next_functions]
    return list(found.values())


class Identity(Mixer):
    """Returns its input."""

    traits = Traits(causal="strict", bidirectional=True, resumable=True)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Any]:
        return x, state


PLAIN: dict[Role, Callable[[Recipe, Role, Shape], Model]] = {
    "lm": LanguageModel,
    "masked": MaskedLanguageModel,
    "classify": Classifier,
    "retrieve": Retriever,
    "seq2seq": Seq2Seq,
    "reconstruct": Reconstructor,
}
"""The model of each role; a plug-in may replace those of `zoo.blocks.heads.MODELS`."""


def _outside(subject: Subject) -> int:
    """Parameters outside the backbone beyond those of a plain model of this role and shape: tables moved there.

    A table of positions, two norms and a bias for each output are anybody's.
    """
    model, shape = subject.model, subject.model.shape
    with torch.device("meta"):
        own = dataclasses.replace(shape, depth=1)
        plain = PLAIN[model.role](Recipe(mixer=Part(Identity), channel=None), model.role, own)
    free = sizing.parameters(plain) - sizing.parameters(plain, "non_embedding")
    longest = shape.length + (shape.target_length or 0)
    allowed = free + (longest + 8) * shape.width + shape.outputs
    return max(0, numbers(model) - numbers(model.backbone) - allowed)


@gate("another size than all are matched to", of_matched=True)
def matched_size(subject: Subject) -> Gate:
    """How far the size is from the one that all are matched to."""
    assert subject.match is not None
    assert subject.mismatch is not None
    about = "relative distance from the size all are matched to"
    return result(abs(subject.mismatch), subject.match.tolerance, about)

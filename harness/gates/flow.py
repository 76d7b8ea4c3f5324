"""Gates along time: nothing flows from the future to the past, neither values nor gradients."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from harness.gates.float64 import Float64Copy, undone
from harness.gates.measure import nan_to_inf, relative, result, worst
from harness.gates.registry import IN_TIME, gate
from harness.gates.subject import AS_SCORED, Subject, joined
from harness.records.record import Gate
from tasks.parts import rows
from zoo import size as sizing
from zoo.contract import Batch, Model

EVERY, SOME, TRAINED = 64, 24, 3
"""Up to this many steps every cut is tried, else this many; and of a training batch."""
AFFORDED = 2e11
"""Multiplications that cuts may take, about."""
TOGETHER = 1 << 10
"""Steps of input that one pass takes: most of a small model's pass is overhead."""
LARGE = 10.0
"""Embedded inputs of the future are replaced by vectors this many times as large."""


@gate("the future changes past outputs", roles=IN_TIME)
def causal(subject: Subject) -> Gate:
    """Everything behind a cut is replaced, by other tokens and by large vectors; logits before it must stand.

    Of `seq2seq` it is the target, as the decoder reads it: the source may be seen whole. In evaluation mode, and in
    training mode with the same random numbers.
    """
    precise = subject.float64
    if subject.model.traits.causal != "strict":
        return result(math.inf, precise.limit, "the architecture itself does not claim to be strictly causal")
    batch, found = rows(subject.batch(), slice(0, 2)).tensors(precise.device), 0.0
    chance = subject.generator()
    cuts = _thinned(_cuts(subject.model, batch, chance), subject, batch)
    for training in (False, True):
        with torch.no_grad(), undone(precise.model, training=training):
            before = precise(batch)
            some = sorted({cuts[0], *subject.draw.sample(cuts, min(2, len(cuts))), cuts[-1]})
            draws = [(cut, draw) for cut in cuts for draw in range(4 if cut in some else 1)]
            if training:  # one at a time: random numbers are the same in a batch of the same size only
                found = max(found, *(_leak(precise, subject.model, batch, before, [(cut, 0)], chance) for cut in some))
            else:
                count = max(1, TOGETHER // max(batch.inputs.numel(), before[..., 0].numel()))
                for first in range(0, len(draws), count):
                    part = draws[first : first + count]
                    leak = _leak(precise, subject.model, batch, before, part, chance)
                    if leak > precise.limit:  # perhaps only as so many rows are in the batch
                        leak = max(_leak(precise, subject.model, batch, before, [one], chance) for one in part)
                    found = max(found, leak)
            for cut in some:
                with _enlarged(precise.model, batch, cut, chance):
                    found = max(found, relative(precise(batch)[:, :cut], before[:, :cut]))
    about = "largest relative change of past logits when the future is replaced"
    alone, trained = result(found, precise.limit, f"{about}, {precise.about}"), _as_trained(subject, _value_leak, about)
    return worst(alone, trained, *_as_scored(subject))


def _as_trained(subject: Subject, leak: Callable[..., float | None], about: str) -> Gate:
    """The largest leak at some cuts of a training batch, in the model's own precision and with gradients.

    What leaks only there is no use in scoring, but in learning.
    """
    model, chance = subject.model, subject.generator()
    step = subject.draw.randrange(max(1, subject.watch.steps))
    batch = subject.task.batch("train", step, subject.seed, size=subject.examples).tensors(subject.device)
    same, cuts = Float64Copy(model, AS_SCORED, "as it is trained", subject.device), _cuts(model, batch, chance)
    with undone(model, training=True), torch.enable_grad():
        found = [leak(same, model, batch, cut, chance) for cut in subject.draw.sample(cuts, min(TRAINED, len(cuts)))]
    return result(max(math.inf if one is None else one for one in found), AS_SCORED, f"{about}, {same.about}")


def _value_leak(precise: Float64Copy, model: Model, batch: Batch, cut: int, chance: torch.Generator) -> float:
    return _leak(precise, model, batch, precise(batch).detach(), [(cut, 0)], chance)


def _leak(
    precise: Float64Copy,
    model: Model,
    batch: Batch,
    before: Tensor,
    draws: Sequence[tuple[int, int]],
    chance: torch.Generator,
) -> float:
    """The largest change of logits before a cut, over all (cut, draw), whose futures go through the model together."""
    changed = precise(joined([_other_future(model, batch, cut, draw, chance) for cut, draw in draws]))
    pairs = zip(draws, changed.split(len(batch)), strict=True)
    return max(relative(logits[:, :cut], before[:, :cut]) for (cut, _), logits in pairs)


def _as_scored(subject: Subject) -> Iterator[Gate]:
    """Replace the future in the batches that the record's scores were made of; compare with the logits of that time.

    What leaks only in float32, or only among as many examples as are scored together, is seen here.
    """
    chance = subject.generator()
    for batch, before in subject.scored:
        found, cuts = 0.0, _cuts(subject.model, batch, chance)
        for cut in {cuts[0], *subject.draw.sample(cuts, min(4, len(cuts))), cuts[-1]}:
            for draw in range(2):
                changed = subject.answer(_other_future(subject.model, batch, cut, draw, chance))
                found = max(found, relative(changed[:, :cut], before[:, :cut]))
        yield result(found, AS_SCORED, "largest relative change of past logits from those scored")


@gate("past outputs have a gradient from the future", roles=IN_TIME)
def gradient_leak(subject: Subject) -> Gate:
    """The gradient of outputs before a cut with respect to embedded inputs behind it, over that before it.

    Straight-through tricks leak no value but a gradient. A model whose embedding is not found does not pass.
    """
    about = "largest gradient of past outputs by future embedded inputs, over that by past ones"
    precise = subject.float64
    batch, found = rows(subject.batch(), slice(0, 2)).tensors(precise.device), 0.0
    chance = subject.generator()
    cuts = _cuts(subject.model, batch, chance)
    for training in (False, True):
        with undone(precise.model, training=training):
            for cut in {cuts[0], *subject.draw.sample(cuts, min(2, len(cuts))), cuts[-1]}:
                leak = _gradient_leak(precise, subject.model, batch, cut, chance)
                if leak is None:
                    return result(math.inf, precise.limit, f"{about}: the model shows no embedding of its inputs")
                found = max(found, leak)
    return worst(result(found, precise.limit, f"{about}, {precise.about}"), _as_trained(subject, _gradient_leak, about))


def _gradient_leak(precise: Float64Copy, model: Model, batch: Batch, cut: int, chance: torch.Generator) -> float | None:
    """Which steps of the embedding belong to the future is seen from what other tokens there change."""
    changed, embedded = list[Tensor](), list[Tensor]()
    with _hooked(precise.model, changed.append), torch.no_grad():
        precise(_other_future(model, batch, cut, 1, chance))
    with _hooked(precise.model, embedded.append), torch.enable_grad():
        logits = precise(batch)
        if not embedded or not logits.requires_grad:
            return None
        weight = torch.randn(logits[:, :cut].shape, generator=chance, dtype=torch.float64)
        scalar = (logits[:, :cut] * weight.to(logits)).sum()
        inputs = [x for x in embedded if x.requires_grad]
        grads = torch.autograd.grad(scalar, inputs, allow_unused=True)
    future, past = 0.0, 0.0
    changed_by = [x for x, y in zip(changed, embedded, strict=True) if y.requires_grad]
    for x, y, grad in zip(inputs, changed_by, grads, strict=True):
        if grad is None:
            continue
        ahead = (x - y).abs().amax(-1) > 0
        size = grad.abs().amax(-1)
        future = max(future, nan_to_inf(float(size[ahead].max())) if ahead.any() else 0.0)
        past = max(past, nan_to_inf(float(size.max())))
    return nan_to_inf(future / past) if past > 0 else 0.0 if future == 0 else math.inf


def _field(role: str) -> str:
    """The field of a batch whose future is hidden: of `seq2seq` what the decoder reads."""
    return "inputs" if role == "lm" else "decoder_inputs"


def _cuts(model: Model, batch: Batch, chance: torch.Generator) -> list[int]:
    """Where the future begins: everywhere in short sequences, else behind targets that count, and at random."""
    steps = getattr(batch, _field(model.role)).shape[1]
    if steps <= EVERY:
        return list(range(1, steps)) or [1]
    fixed = {1, 2, steps // 3, steps // 2, steps - 2, steps - 1}
    counted = torch.ones(steps) if batch.counted is None else batch.counted.cpu().any(0)[:steps].float()
    wanted = [
        int(t) + 1 for t in counted.nonzero().flatten()[torch.randperm(int((counted > 0).sum()), generator=chance)]
    ]
    drawn = torch.randint(1, steps, (SOME,), generator=chance).tolist()
    return sorted({*fixed, *[t for t in wanted if t < steps][: SOME // 2], *drawn[: SOME // 2]})


def _thinned(cuts: list[int], subject: Subject, batch: Batch) -> list[int]:
    """Fewer for large models on long sequences, whose passes in float64 take seconds; four at least."""
    one = 2 * sizing.parameters(subject.model) * batch.inputs.numel()
    most = max(4, int(AFFORDED / one))
    return cuts if len(cuts) <= most else sorted(subject.draw.sample(cuts, most))


def _other_future(model: Model, batch: Batch, cut: int, draw: int, chance: torch.Generator) -> Batch:
    """A batch with other tokens from the cut on: shifted, drawn at random, all the last of the vocabulary, or all 0."""
    field = _field(model.role)
    vocab = (model.shape.vocab if model.role == "lm" else model.shape.outputs) or 1
    changed = getattr(batch, field).clone()
    ahead = changed[:, cut:]
    if draw == 0:
        changed[:, cut:] = (ahead + 1 + changed[:, :1] % 7) % vocab
    elif draw == 1:
        drawn = torch.randint(1, max(2, vocab), ahead.shape, generator=chance)
        changed[:, cut:] = (ahead + drawn.to(ahead.device)) % vocab
    else:
        changed[:, cut:] = vocab - 1 if draw == 2 else 0
    return replace(batch, **{field: changed})


@contextmanager
def _hooked(model: Model, hook: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Hook the output of the model's own embedding, or of every table that it has."""
    own = getattr(model, "embedding", None)
    tables = [own] if isinstance(own, nn.Module) else [m for m in model.modules() if isinstance(m, nn.Embedding)]
    handles = [table.register_forward_hook(lambda module, inputs, output: hook(output)) for table in tables]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _enlarged(model: Model, batch: Batch, cut: int, chance: torch.Generator) -> AbstractContextManager[None]:
    """The future's embedded inputs replaced by large vectors, where the embedding's rows are the steps themselves."""
    steps, source = getattr(batch, _field(model.role)).shape[1], 0 if model.role == "lm" else batch.inputs.shape[1]
    seen: list[int] = []

    def enlarge(output: Tensor) -> Tensor | None:
        length = output.shape[1]
        encoder = source and length == source and not seen
        seen.append(length)
        whole = length == steps or (length == source + steps and batch.mask is None)
        if not whole or encoder:
            return None
        drawn = torch.randn(output.shape, generator=chance)
        ahead = torch.arange(length, device=output.device) >= (cut if length == steps else source + cut)
        return torch.where(ahead[:, None], LARGE * drawn.to(output) * output.detach().abs().mean(), output)

    return _hooked(model, enlarge)

"""Checks of what may flow where along time: causality, resumption, padding, length."""

import dataclasses

import torch
from torch import Tensor

from zoo.blocks.heads import EncoderDecoder, LanguageModel, Seq2Seq, SequenceModel
from zoo.check_result import CheckResult, failed, skipped, within
from zoo.checks.subject import (
    LONG,
    VOCAB,
    Subject,
    T,
    U,
    distance,
    distances,
    example,
    gradients,
    loss,
    state_distance,
    tokens,
)
from zoo.contract import Batch, Model, State, Unsupported, leaves
from zoo.types import STEPWISE

EXACT = 1e-10
"""What rounding alone may change in float64."""
CUTS = {T: (1, 2, T // 2, T - 1), LONG: (16, 40, 64, 65, LONG - 1)}
"""Where the future begins, by length."""
LENGTHS = (T, T // 2, 1, 0)
"""Valid steps of the rows of a padded batch; a row may be all padding."""


def check_causality(subject: Subject) -> CheckResult:
    """`strict`: what precedes t stands when all from t on is replaced, by large vectors and by other tokens.

    `leaky`: it does not always; whoever leaks nothing is strict and should say so.
    """
    if "lm" not in subject.roles:
        return skipped("causality", "cannot be causal")
    claim = subject.initial("lm").traits.causal
    worst = max(_leak(subject, steps) for steps in CUTS)
    if claim == "strict":
        return within("causality", worst, EXACT, "change of what precedes a replaced future")
    for seed in range(1, 6):
        if worst <= EXACT:
            worst = max(worst, _leak(subject, LONG, seed))
    leaks = worst > EXACT
    what = "effect of the future on the past" if leaks else f"claims to be {claim!r} only, but nothing leaks"
    return CheckResult("causality", "passed" if leaks else "failed", worst, None, what)


@torch.no_grad()
def _leak(subject: Subject, steps: int, seed: int = 0) -> float:
    """The largest change of what precedes t, for the t of `CUTS`: a row for each, behind one that is left alone."""
    model, cuts = subject.random("lm", seed=seed, steps=steps), CUTS[steps]
    past = torch.arange(steps) < torch.tensor([steps, *cuts])[:, None]
    x, ids = subject.vectors(1, steps), tokens(1, steps)
    x = torch.where(past[..., None], x, 10 * subject.vectors(len(past), steps))
    ids = torch.where(past, ids, (ids + 1) % VOCAB)
    found = (model.backbone(x)[0], model(Batch(inputs=ids)))
    return max(distance(y[row, :t], y[0, :t]) for y in found for row, t in enumerate(cuts, 1))


@torch.no_grad()
def check_both_ways(subject: Subject) -> CheckResult:
    """As an encoder, a model that sees the past sees the future too. This shows that the causality check has power."""
    if subject.encoder is None:
        return skipped("both_ways", "cannot be an encoder")
    backbone, x, t = subject.random(subject.encoder).backbone, subject.vectors(), T // 2
    y = backbone(x)[0]
    past = torch.cat([subject.vectors(steps=t), x[:, t:]], dim=1)
    future = torch.cat([x[:, :t], subject.vectors(steps=T - t)], dim=1)
    seen = [distance(backbone(past)[0][:, t:], y[:, t:]), distance(backbone(future)[0][:, :t], y[:, :t])]
    if seen[0] < EXACT and seen[1] < EXACT:
        return skipped("both_ways", "sees neither past nor future")
    ok = min(seen) > EXACT
    return CheckResult(
        "both_ways", "passed" if ok else "failed", min(seen), None, "effect of the past and of the future"
    )


def check_resumption(subject: Subject) -> CheckResult:
    """One parallel pass, pieces of 1, 7, 9 and more, and single steps: outputs, last state and gradients agree."""
    if "lm" not in subject.roles:
        return skipped("resumption", "cannot be causal")
    model, ids = subject.random("lm"), tokens()
    if not model.traits.resumable:
        try:
            model.init_state(1)
        except Unsupported:
            return skipped("resumption", "not resumable, and says so")
        return failed("resumption", "not resumable, yet init_state gives a state")
    found = _departures(model, ids, {"one call": (T,), "steps": (1,) * T})
    long = subject.random("lm", steps=LONG)
    found |= _departures(long, tokens(1, LONG), {"one long call": (LONG,), "pieces": (1, 7, T - 8, LONG - T)})
    where = max(found, key=lambda key: found[key])
    return within("resumption", found[where], 1e-9, f"largest in {where}")


def _departures(model: Model, ids: Tensor, ways: dict[str, tuple[int, ...]]) -> dict[str, float]:
    """How far outputs, state and gradients of each way to cut a sequence are from those of one parallel pass."""
    whole = model(Batch(inputs=ids))
    weight = torch.randn_like(whole)
    wanted = gradients(model, (whole * weight).sum())
    last, found = None, {}
    for how, sizes in ways.items():
        logits, state = _extend(model, ids, sizes)
        last = state if last is None else last
        found[f"outputs of {how}"] = distance(logits, whole)
        found[f"state of {how}"] = state_distance(state, last)
        found[f"gradients of {how}"] = distances(gradients(model, (logits * weight).sum()), wanted)
    return found


def _extend(model: Model, ids: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, State]:
    state, parts = model.init_state(len(ids)), []
    for piece in ids.split(list(sizes), dim=1):
        logits, state = model.extend(piece, state)
        parts.append(logits)
    return torch.cat(parts, dim=1), state


@torch.no_grad()
def check_padding(subject: Subject) -> CheckResult:
    """Junk in padding changes no valid output, which is also what the row gives alone, cut to its valid steps."""
    if not subject.backbones:
        return skipped("padding", "plays no role")
    worst = 0.0
    for role in subject.backbones:
        model = subject.random(role)
        if not model.traits.padding_safe:
            return skipped("padding", "does not claim to be padding-safe")
        x, junk, mask = _padded(subject)
        y, other = model.backbone(x, mask=mask)[0], model.backbone(junk, mask=mask)[0]
        if not bool(other.isfinite().all()):
            return failed("padding", "not finite in padding, which poisons gradients")
        worst = max(worst, distance(other[mask], y[mask]))
        for row, n in enumerate(LENGTHS[:-1]):
            alone = model.backbone(x[row : row + 1, :n])[0]
            worst = max(worst, distance(alone[0], y[row, :n]))
    return within("padding", worst, EXACT, "change of valid outputs")


@torch.no_grad()
def check_padded_state(subject: Subject) -> CheckResult:
    """The state after a right-padded prefill is that after the valid steps alone, and continues in the same way.

    So it does after one more step that only the first row has.
    """
    if "lm" not in subject.roles:
        return skipped("padded_state", "cannot be causal")
    more = subject.vectors(len(LENGTHS), U)
    model = subject.random("lm", steps=T + U)
    if not (model.traits.resumable and model.traits.padding_safe):
        return skipped("padded_state", "does not claim to be both resumable and padding-safe")
    _, x, mask = _padded(subject)
    backbone = model.backbone

    def fresh(batch: int) -> State:
        return backbone.init_state(batch, device="cpu", dtype=torch.float64)

    def given(after: State | None) -> State:
        assert after is not None, "given a state, the backbone returns none"
        return after

    state = given(backbone(x, mask=mask, state=fresh(len(x)))[1])
    y = backbone(more, state=state)[0]
    first = torch.arange(len(x))[:, None] == 0
    later = backbone(more, state=given(backbone(x[:, :1], mask=first, state=state)[1]))[0]
    worst = distance(later[1:], y[1:])
    for row, n in enumerate(LENGTHS):
        own = given(backbone(x[row : row + 1, :n], state=fresh(1))[1]) if n else fresh(1)
        worst = max(worst, distance(backbone(more[row : row + 1], state=own)[0][0], y[row]))
        pairs = list(zip(leaves(own), leaves(state), strict=False))
        if all(a.shape[1:] == b.shape[1:] for a, b in pairs):  # a KV cache keeps the padding's slots
            worst = max([worst, *(distance(a[0], b[row]) for a, b in pairs)])
    return within("padded_state", worst, EXACT, "change of the state or of what follows")


def check_padded_batches(subject: Subject) -> CheckResult:
    """Junk tokens in padding change no logits, loss or gradient that counts, nor what follows a prefill.

    Nor does the padding: a row alone, cut to its valid steps, has the same logits.
    """
    if not subject.roles:
        return skipped("padded_batches", "plays no role")
    found: dict[str, float] = {}
    for role in subject.stacks:
        model, batch = subject.random(role, steps=T + U), example(role, len(LENGTHS))
        if not model.traits.padding_safe:
            return skipped("padded_batches", "does not claim to be padding-safe")
        batch.mask = torch.arange(T) < torch.tensor(LENGTHS)[:, None]
        batch.counted = batch.mask if role in STEPWISE else None
        junk = dataclasses.replace(batch, inputs=torch.where(batch.mask, batch.inputs, tokens(len(LENGTHS))))
        logits, other = model(batch), model(junk)
        counted = torch.ones_like(batch.targets, dtype=torch.bool) if batch.counted is None else batch.counted
        found[f"{role}: logits"] = distance(other[counted], logits[counted])
        before, after = loss(logits, batch), loss(other, junk)
        found[f"{role}: loss"] = distance(after, before)
        found[f"{role}: gradients"] = distances(gradients(model, after), gradients(model, before))
        for row, n in enumerate(LENGTHS[:-1]):
            found[f"{role}: {n} steps alone"] = distance(*_alone(model, batch, logits, row))
        if role in ("lm", "seq2seq") and model.traits.resumable:
            after_padding = [_continued(model, which) for which in (batch, junk)]
            found[f"{role}: what follows"] = distance(*after_padding)
            if role == "seq2seq":
                found["seq2seq: decoding"] = distance(after_padding[0], logits)
    where = max(found, key=lambda key: found[key])
    return within("padded_batches", found[where], EXACT, f"largest in {where}")


@torch.no_grad()
def _alone(model: Model, batch: Batch, logits: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """The logits of one row by itself, cut to its valid steps; and those it has in the batch."""
    n = LENGTHS[row]
    own = {name: value[row : row + 1] for name, value in batch.arrays().items() if name not in ("mask", "counted")}
    alone = model(Batch(**{**own, "inputs": own["inputs"][:, :n]}))[0]
    return alone, logits[row, : len(alone)] if logits.dim() > 2 else logits[row]


@torch.no_grad()
def _continued(model: Model, batch: Batch) -> Tensor:
    """Logits of U tokens after a batch's inputs and their padding."""
    if isinstance(model, LanguageModel):
        _, state = model.resume(batch.inputs, model.init_state(len(batch)), batch.mask)
        return model.extend(batch.targets[:, :U], state)[0]
    assert isinstance(model, (Seq2Seq, EncoderDecoder))
    return model.extend(batch.decoder_inputs, model.read(batch.inputs, batch.mask))[0]


def _padded(subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    """A batch, the same with junk in its padding, and its mask."""
    x = subject.vectors(len(LENGTHS))
    mask = torch.arange(T) < torch.tensor(LENGTHS)[:, None]
    return x, torch.where(mask[..., None], x, 10 * torch.randn_like(x)), mask


@torch.no_grad()
def check_length(subject: Subject) -> CheckResult:
    """Short sequences work; one longer than built for works or is refused with a ValueError: nothing is cut."""
    if not subject.backbones:
        return skipped("length", "plays no role")
    notes = []
    for role in subject.backbones:
        model = subject.random(role)
        for steps in (1, 2, 3, 5):
            y = model.backbone(subject.vectors(steps=steps))[0]
            if y.shape != (3, steps, subject.width) or not bool(y.isfinite().all()):
                return failed("length", f"{role}: {steps} steps give {tuple(y.shape)}, or not finite")
        long = 2 * subject.length + 1
        assert isinstance(model, SequenceModel)
        free = model.longest is None
        ids = tokens(steps=long)
        try:
            y = model(Batch(inputs=ids, inputs2=ids))
        except ValueError as error:
            if free:
                return failed("length", f"{role}: claims any length, but raises {error}")
            notes.append(f"{role}: longer is refused")
            continue
        if role == "lm" and y.shape[1] != long:
            return failed("length", f"{role}: {long} steps in, {y.shape[1]} out")
        notes.append(f"{role}: longer works")
    return CheckResult("length", "passed", note=", ".join(notes))

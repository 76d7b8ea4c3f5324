"""Checks of what may flow where along time: causality, resumption, padding, length."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.checks.subject import (
    VOCAB,
    Outcome,
    Subject,
    T,
    distance,
    skipped,
    state_distance,
    tokens,
    within,
)
from zoo.contract import Batch, Model, State, Unsupported, leaves

EXACT = 1e-10
"""What rounding alone may change in float64."""
CUTS = (1, 2, T // 2, T - 1)
LENGTHS = (T, T // 2, 1, 0)
"""Valid steps of the rows of a padded batch; a row may be all padding."""


def check_causality(subject: Subject) -> Outcome:
    """`strict`: what precedes t stands when all from t on is replaced, by large vectors and by other tokens."""
    if "lm" not in subject.roles:
        return skipped("causality", "cannot be causal")
    model = subject.random("lm")
    if model.traits.causal != "strict":
        return skipped("causality", f"claims to be {model.traits.causal!r} only")
    x, ids, worst = subject.vectors(), tokens(), 0.0
    logits, y = model(Batch(inputs=ids)), model.backbone(x)[0]
    for t in CUTS:
        others = torch.cat([x[:, :t], 10 * subject.vectors(steps=T - t)], dim=1)
        shifted = torch.cat([ids[:, :t], (ids[:, t:] + 1) % VOCAB], dim=1)
        worst = max(worst, distance(model.backbone(others)[0][:, :t], y[:, :t]))
        worst = max(worst, distance(model(Batch(inputs=shifted))[:, :t], logits[:, :t]))
    return within("causality", worst, EXACT, "change of what precedes a replaced future")


def check_both_ways(subject: Subject) -> Outcome:
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
    return Outcome("both_ways", "passed" if ok else "failed", min(seen), None, "effect of the past and of the future")


def check_resumption(subject: Subject) -> Outcome:
    """One parallel pass, pieces of 1, 7 and T − 8 steps, and single steps: outputs, final state and gradients agree."""
    if "lm" not in subject.roles:
        return skipped("resumption", "cannot be causal")
    model, ids = subject.random("lm"), tokens()
    if not model.traits.resumable:
        try:
            model.init_state(1)
        except Unsupported:
            return skipped("resumption", "not resumable, and says so")
        return Outcome("resumption", "failed", note="not resumable, yet init_state gives a state")
    weight = torch.randn(3, T, VOCAB, dtype=torch.float64)
    whole = model(Batch(inputs=ids))
    wanted = _gradients(model, (whole * weight).sum())
    _, last = model.extend(ids, model.init_state(3))
    found: dict[str, float] = {}
    for how, sizes in (("one call", (T,)), ("pieces", (1, 7, T - 8)), ("steps", (1,) * T)):
        logits, state = _extend(model, ids, sizes)
        found[f"outputs of {how}"] = distance(logits, whole)
        found[f"state of {how}"] = state_distance(state, last)
        gradients = _gradients(model, (logits * weight).sum())
        pairs = zip(gradients, wanted, strict=True)
        found[f"gradients of {how}"] = max(distance(a, b) for a, b in pairs)
    where = max(found, key=lambda key: found[key])
    return within("resumption", found[where], 1e-9, f"largest in {where}")


def _extend(model: Model, ids: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, State]:
    state, parts = model.init_state(len(ids)), []
    for piece in ids.split(list(sizes), dim=1):
        logits, state = model.extend(piece, state)
        parts.append(logits)
    return torch.cat(parts, dim=1), state


def _gradients(model: Model, scalar: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(scalar, list(model.parameters()), allow_unused=True)
    return [torch.zeros(1) if grad is None else grad for grad in found]


def check_padding(subject: Subject) -> Outcome:
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
            return Outcome("padding", "failed", note="not finite in padding, which poisons gradients")
        worst = max(worst, distance(other[mask], y[mask]))
        for row, n in enumerate(LENGTHS[:-1]):
            alone = model.backbone(x[row : row + 1, :n])[0]
            worst = max(worst, distance(alone[0], y[row, :n]))
    return within("padding", worst, EXACT, "change of valid outputs")


def check_padded_state(subject: Subject) -> Outcome:
    """The state after a right-padded prefill is that after the valid steps alone, and continues in the same way."""
    if "lm" not in subject.roles:
        return skipped("padded_state", "cannot be causal")
    model = subject.random("lm")
    if not (model.traits.resumable and model.traits.padding_safe):
        return skipped("padded_state", "does not claim to be both resumable and padding-safe")
    _, x, mask = _padded(subject)
    backbone, more = model.backbone, subject.vectors(len(LENGTHS), 4)

    def fresh(batch: int) -> State:
        return backbone.init_state(batch, device="cpu", dtype=torch.float64)

    def given(after: State | None) -> State:
        assert after is not None, "given a state, the backbone returns none"
        return after

    state = given(backbone(x, mask=mask, state=fresh(len(x)))[1])
    y, worst = backbone(more, state=state)[0], 0.0
    for row, n in enumerate(LENGTHS):
        own = given(backbone(x[row : row + 1, :n], state=fresh(1))[1]) if n else fresh(1)
        worst = max(worst, distance(backbone(more[row : row + 1], state=own)[0][0], y[row]))
        pairs = list(zip(leaves(own), leaves(state), strict=False))
        if all(a.shape[1:] == b.shape[1:] for a, b in pairs):  # a KV cache keeps the padding's slots
            worst = max([worst, *(distance(a[0], b[row]) for a, b in pairs)])
    return within("padded_state", worst, EXACT, "change of the state or of what follows")


def _padded(subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    """A batch, the same with junk in its padding, and its mask."""
    x = subject.vectors(len(LENGTHS))
    mask = torch.arange(T) < torch.tensor(LENGTHS)[:, None]
    return x, torch.where(mask[..., None], x, 10 * torch.randn_like(x)), mask


def check_length(subject: Subject) -> Outcome:
    """Short sequences work; one longer than built for works or is refused with a ValueError: nothing is cut."""
    if not subject.backbones:
        return skipped("length", "plays no role")
    notes = []
    for role in subject.backbones:
        model = subject.random(role)
        for steps in (1, 2, 3, 5):
            y = model.backbone(subject.vectors(steps=steps))[0]
            if y.shape != (3, steps, subject.width) or not bool(y.isfinite().all()):
                return Outcome("length", "failed", note=f"{role}: {steps} steps give {tuple(y.shape)}, or not finite")
        long = 2 * subject.length + 1
        free = model.traits.length == "any" and subject.recipe.positions != "learned"
        ids = tokens(steps=long)
        try:
            y = model(Batch(inputs=ids, inputs2=ids))
        except ValueError as error:
            if free:
                return Outcome("length", "failed", note=f"{role}: claims any length, but raises {error}")
            notes.append(f"{role}: longer is refused")
            continue
        if role == "lm" and y.shape[1] != long:
            return Outcome("length", "failed", note=f"{role}: {long} steps in, {y.shape[1]} out")
        notes.append(f"{role}: longer works")
    return Outcome("length", "passed", note=", ".join(notes))

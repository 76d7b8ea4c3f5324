"""Checks of how models are made and trained: roles, initialisation, parameter groups, gradients, state size."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from zoo.blocks.bidirectional import Bidirectional
from zoo.blocks.residual import RESIDUALS
from zoo.blocks.stack import Stack, make_mixer
from zoo.check_result import CheckResult, failed, skipped, within
from zoo.checks.subject import CLASSES, VOCAB, Subject, T, U, distance, example, gradients, loss
from zoo.contract import LayerContext, Mixer, ParamOverride, state_bytes
from zoo.layers.positions import acts
from zoo.layers.positions import part as part_of
from zoo.layers.side_by_side import Sum
from zoo.size import recurrent_state_bytes
from zoo.types import LABELLED, STEPWISE

LOGITS = {
    **dict.fromkeys(STEPWISE, (3, T, VOCAB)),
    **dict.fromkeys(LABELLED, (3, CLASSES)),
    "seq2seq": (3, U, VOCAB),
}


@torch.no_grad()
def check_roles(subject: Subject) -> CheckResult:
    """Every role gives logits of the promised shape, or `Unsupported` while being built; not all of them the latter."""
    for role in subject.roles:
        logits = subject.initial(role)(example(role))
        if tuple(logits.shape) != LOGITS[role] or not bool(logits.isfinite().all()):
            note = f"{role}: logits {tuple(logits.shape)}, promised {LOGITS[role]} and finite"
            return failed("roles", note)
    status: Any = "passed" if subject.roles else "failed"
    return CheckResult("roles", status, len(subject.roles), note=", ".join(subject.roles) or "plays no role")


@torch.no_grad()
def check_initialisation(subject: Subject) -> CheckResult:
    """One seed gives one model; depth 1 works; a deep copy, a state dict and a sketch without memory agree with it."""
    for role in subject.stacks:
        model, batch = subject.initial(role), example(role)
        logits, wanted = model(batch), model.state_dict()
        again = subject.build(role).state_dict()
        if any(not torch.equal(value, again[name]) for name, value in wanted.items()):
            return failed("initialisation", f"{role}: two builds under one seed differ")
        if not bool(subject.build(role, depth=1)(batch).isfinite().all()):
            return failed("initialisation", f"{role}: not finite at depth 1")
        reader = subject.build(role, seed=1)
        reader.load_state_dict(wanted)
        for what, other in (("a deep copy", copy.deepcopy(model)), ("a reader of its state dict", reader)):
            if distance(other(batch), logits) > 0:
                return failed("initialisation", f"{role}: {what} gives other logits")
        with torch.device("meta"):
            sketch = subject.build(role).state_dict()
        if {k: v.shape for k, v in sketch.items()} != {k: v.shape for k, v in wanted.items()}:
            return failed("initialisation", f"{role}: other shapes on the meta device")
    return CheckResult("initialisation", "passed")


def check_nesting(subject: Subject) -> CheckResult:
    """What initialisation determines (ramps, zeros, tables) is the same in a mixer alone, reset again, and in a stack.

    Nothing around a mixer overwrites its special values: neither the stack, nor a residual, nor `Bidirectional`.
    """
    seen = 0
    for role in subject.backbones:
        stack = subject.initial(role).backbone
        assert isinstance(stack, Stack)
        inner: list[Any] = [sublayer.inner for sublayer in stack.sublayers]
        parts = [part for f in inner for part in (f.parts if type(f) is Sum else [f])]
        for part, (make, layer) in zip(parts, _makers(subject, causal=role == "lm"), strict=True):
            alone = []
            for seed in range(2):
                torch.manual_seed(seed)
                mixer = make()
                mixer.reset_parameters(layer=layer, depth=subject.depth)
                alone.append({name: value.clone() for name, value in mixer.state_dict().items()})
            mixer.reset_parameters(layer=layer, depth=subject.depth)
            fixed = {name: value for name, value in alone[0].items() if distance(alone[1][name], value) == 0}
            found = {"reset twice": mixer, "inside the stack": part}
            if isinstance(part, Bidirectional):
                found = {"reset twice": mixer, "looking ahead": part.ahead, "looking back": part.back}
            for where, other in found.items():
                values = other.state_dict()
                changed = [name for name in fixed if distance(values[name], fixed[name]) > 0]
                if changed:
                    note = f"{role}: {type(mixer).__name__} has another {', '.join(changed)} {where}"
                    return failed("nesting", note)
            seen += len(fixed)
    return CheckResult("nesting", "passed", seen, note="initial values that do not depend on the seed")


def _makers(subject: Subject, *, causal: bool) -> list[tuple[Callable[[], Mixer], int]]:
    """What builds each part of a stack alone, and its layer; a mixer that a `Bidirectional` doubles, once."""
    recipe = subject.recipe
    found: list[tuple[Callable[[], Mixer], int]] = []
    relative = None if acts(recipe.positions) is None else part_of(recipe.positions)
    gain = RESIDUALS.resolve(recipe.residuals[0]).gain(subject.depth)
    for layer in range(subject.depth):
        turn = layer % len(recipe.mixers)
        for part in (recipe.mixers[turn], recipe.channels[turn]):
            if part is None:
                continue
            kind: Any = part.kind
            one_way = causal or not kind.traits.bidirectional
            context = LayerContext(subject.width, subject.length, one_way, layer, subject.depth, relative, gain)
            found.append((partial(make_mixer, part, context), layer))
    return found


def check_groups(subject: Subject) -> CheckResult:
    """Overrides name existing parameters, make sense, agree where one has two names, and survive a deep copy."""
    for role in subject.roles:
        model = subject.initial(role)
        overrides = model.param_overrides()
        own = {id(p): name for name, p in model.named_parameters()}
        named = dict(model.named_parameters(remove_duplicate=False))
        for name, override in overrides.items():
            if name not in named:
                return failed("groups", f"{role}: an override names {name!r}, which is no parameter")
            if overrides.get(own[id(named[name])]) != override:
                return failed("groups", f"{role}: shared parameter {name!r} has two overrides, or is missed")
            if not _sensible(override):
                return failed("groups", f"{role}: {name!r} has {override}")
        if role in subject.stacks and copy.deepcopy(model).param_overrides() != overrides:
            return failed("groups", f"{role}: a deep copy has other overrides")
    return CheckResult("groups", "passed")


def _sensible(override: ParamOverride) -> bool:
    scale, most = override.lr_scale, override.lr_max
    return 0 < scale < math.inf and (most is None or 0 < most < math.inf)


def check_gradients(subject: Subject) -> CheckResult:
    """Within two steps from initialisation (which zeros may need) a gradient reaches every parameter, all finite."""
    for role in subject.stacks:
        model = subject.build(role).double()
        batch = example(role, batch=8)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        dead = set(parameters)
        for _ in range(3):
            grads = dict(zip(parameters, gradients(model, loss(model(batch), batch)), strict=True))
            dead -= {name for name, grad in grads.items() if bool(grad.any())}
            wild = [name for name, grad in grads.items() if not bool(grad.isfinite().all())]
            if wild or not dead:
                break
            with torch.no_grad():
                for name, p in parameters.items():
                    p.sub_(grads[name].sign(), alpha=1e-2)
        if dead or wild:
            what = f"not finite: {', '.join(wild)}" if wild else f"no gradient reaches {', '.join(sorted(dead))}"
            return CheckResult("gradients", "failed", len(wild or dead), 0, f"{role}: {what}")
    return CheckResult("gradients", "passed", 0, 0)


def check_state_size(subject: Subject) -> CheckResult:
    """The state keeps its size, or grows by the same bytes at every step (up to a window), also on the meta device."""
    if "lm" not in subject.roles:
        return skipped("state_size", "cannot be causal")
    model = subject.initial("lm")
    if not model.traits.resumable:
        return skipped("state_size", "not resumable")
    lengths = (4, 8, 16)
    sizes = [recurrent_state_bytes(model, n) or 0 for n in lengths]
    with torch.device("meta"):
        sketched = recurrent_state_bytes(subject.build("lm"), lengths[-1])
    if sketched != sizes[-1]:
        return CheckResult(
            "state_size", "failed", sketched, sizes[-1], "bytes on the meta device differ from the real ones"
        )
    first, second = sizes[1] - sizes[0], sizes[2] - sizes[1]
    if second == 0:
        return CheckResult("state_size", "passed", sizes[-1], note=f"constant, {sizes[-1]} bytes")
    _, state = model.extend(torch.zeros(2, lengths[-1], dtype=torch.long), model.init_state(2))
    off = max(abs(second - 2 * first), abs(state_bytes(state) - 2 * sizes[-1]))
    return within("state_size", off, 0, f"grows by {first / 4:g} bytes a step; measured: departure from that")

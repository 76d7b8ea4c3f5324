"""What must hold of the record of a run, whoever made it: its numbers agree with each other and with its suite."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from harness.gates.registry import applied
from harness.records.meters import Meters
from harness.records.record import CurvePoint, Metrics, Record
from harness.records.verify import stream_by_step
from harness.training.train import LOG_POINTS
from tasks.base import Task

Problem: TypeAlias = "tuple[str, str]"
"""What was checked, and why it does not hold."""
CLOSE = 1e-6
"""How far numbers may lie apart, relative, that are computed from each other."""


@dataclass(frozen=True)
class Expected:
    """What a run must have seen, from the reviewer's own task."""

    task: Task
    tokens: int
    """Of one step."""
    stream: dict[int, str]
    """The hash of the data after the first steps, made anew."""


def problems(record: Record, expected: Expected) -> Iterator[Problem]:
    """Everything that cannot be as a record says, whose spec is one of the suite's."""
    for what, check in CHECKS.items():
        for why in check(record, expected):
            yield what, why


def _scores(record: Record, expected: Expected) -> Iterator[str]:
    """The metrics are the task's; what ended well has the scores its kind has, and nothing else has any."""
    metrics, spec = record.metrics, record.spec
    if metrics.replace(valid={}, test={}, tune=None) != Metrics.of(expected.task):
        yield f"ranked by {metrics.primary}, not by {expected.task.metric.name} as the task is"
    own = {spec.evaluate.split or "valid"} if spec.kind == "trial" else {"valid", "test"}
    scored = {split for split in ("tune", "valid", "test") if metrics.on(split)}
    if scored != (own if record.status == "ok" else set()):
        yield f"scored on {', '.join(sorted(scored)) or 'nothing'}, not on {', '.join(sorted(own))} ({record.status})"
    for split in scored:
        for name, value in metrics.on(split).items():
            top = 1.0 if name.partition("@")[0] == "accuracy" else math.inf
            if value is not None and name.partition("@")[0] in ("accuracy", "loss") and not 0 <= value <= top:
                yield f"{name} on {split} is {value:g}"


def _budget(record: Record, expected: Expected) -> Iterator[str]:
    """Steps, tokens and FLOPs are those of whole steps, as many as the stop rule allows; speeds follow from them."""
    budget, rule = record.budget, record.spec.stop
    used = budget.used
    if rule is None:
        return
    if budget.stop != rule:
        yield "its stop rule is not the suite's"
    if min(used.steps, used.tokens, used.flops, used.seconds) < 0 or not math.isfinite(used.seconds):
        yield "a meter is below zero"
    if used.tokens != used.steps * expected.tokens:
        yield f"{used.tokens} tokens in {used.steps} steps of {expected.tokens}"
    step = Meters(expected.tokens, 1, round(used.flops / max(1, used.steps)))
    if used.steps and not _close(used.flops, (budget.flops_per_token or 0.0) * used.tokens):
        yield f"{used.flops} FLOPs for {used.tokens} tokens of {budget.flops_per_token} each"
    before = Meters(used.tokens - step.tokens, used.steps - 1, used.flops - step.flops, used.seconds)
    if record.status == "ok" and (not used.steps or not (rule.done(used, step) or budget.reached)):
        yield f"ended after {used.of(rule.meter):g} {rule.meter} of {rule.limit:g}"
    elif used.steps > 1 and rule.meter != "seconds" and rule.done(before, step):
        yield f"used {used.of(rule.meter):g} {rule.meter} of {rule.limit:g}"
    if record.status == "ok" and budget.reached != _reached(record):
        yield f"says that {rule.target} was {'' if budget.reached else 'not '}reached; its scores say otherwise"
    speed = record.speed.train_tokens_per_s
    if used.seconds and speed is not None and not _close(speed * used.seconds, used.tokens):
        yield f"{speed:g} tokens a second, but {used.tokens} in {used.seconds:g} s"


def _reached(record: Record) -> bool | None:
    """Whether a score on valid reached the target, None without one."""
    rule, metrics = record.spec.stop, record.metrics
    if rule is None or rule.target is None:
        return None
    scores = [metrics.score(record.spec.evaluate.split or "valid")]
    scores += [(point.valid or {}).get(metrics.primary) for point in record.curve]
    return any(rule.reached(score, higher_is_better=metrics.higher_is_better) for score in scores)


def _size(record: Record, expected: Expected) -> Iterator[str]:
    """A size that meets its target, by its own count of parameters or state."""
    size, match = record.size, record.spec.match
    if record.status != "ok":
        return
    if size is None:
        yield "no size"
    elif match is not None:
        count = {"params": size.params if match.count == "total" else size.params_non_embedding}
        reached = {**count, "state_bytes": size.state_bytes}.get(match.meter)
        if size.target != match.target or size.mismatch is None:
            yield f"matched to {size.target}, not to {match.target:g}"
        elif reached is not None and not abs(reached / match.target - 1 - size.mismatch) <= CLOSE:
            yield f"{reached} {match.meter} are not {size.mismatch:+.2%} off {match.target:g}"
        elif not abs(size.mismatch) <= match.tolerance and record.eligibility.ranked:
            yield f"{size.mismatch:+.2%} off {match.target:g}, {match.tolerance:.1%} allowed, and yet it may be ranked"


def _curve(record: Record, expected: Expected) -> Iterator[str]:
    """A curve rises in every meter, step by whole step, and ends where the run did."""
    curve, used = record.curve, record.budget.used
    if record.spec.stop is None:
        if curve:
            yield "published weights have no curve"
        return
    if len(curve) > LOG_POINTS + 1:
        yield f"{len(curve)} points, at most {LOG_POINTS + 1} are logged"
    if record.status == "ok" and (not curve or not _same(curve[-1], used)):
        yield "does not end where the run did"
    if any(not _rises(one, two) for one, two in pairwise(curve)):
        yield "does not rise in tokens, steps, FLOPs and seconds"
    if any(point.tokens != point.steps * expected.tokens for point in curve):
        yield "its tokens are not those of its steps"
    if any(point.loss is None or not 0 <= point.loss < math.inf for point in curve):
        yield "a loss is below zero or no number"
    last = curve[-1].valid if curve and record.status == "ok" else None
    if last and record.metrics.valid and last != record.metrics.valid:
        yield "its last scores on valid are not those of the run"


def _same(point: CurvePoint, used: Meters) -> bool:
    return all(_close(getattr(point, name), getattr(used, name)) for name in ("tokens", "steps", "flops", "seconds"))


def _rises(one: CurvePoint, two: CurvePoint) -> bool:
    return one.tokens < two.tokens and one.steps < two.steps and one.flops <= two.flops and one.seconds <= two.seconds


def _gates(record: Record, expected: Expected) -> Iterator[str]:
    """Every gate that applies was judged but those the suite skips; each outcome follows from its numbers."""
    spec, known = record.spec, record.eligibility
    if spec.kind == "trial" or record.status != "ok" or spec.pretrained:
        if known.gates or known.ranked:
            yield "was judged, though no final run that ended well"
        return
    skipped, given = {*spec.evaluate.skip_gates}, {*known.gates}
    matched = spec.match is not None and record.size is not None and record.size.mismatch is not None
    wanted = {*applied(spec.role, matched=matched)} - skipped
    if {*known.skipped} != skipped:
        theirs, ours = (", ".join(sorted(names)) or "none" for names in (known.skipped, skipped))
        yield f"skipped {theirs}; the suite skips {ours}"
    if wanted != given:
        lacking, more = ", ".join(sorted(wanted - given)), ", ".join(sorted(given - wanted))
        yield f"not judged by {lacking}" if lacking else f"judged by {more}, which this zoobench does not know here"
    for name, gate in known.gates.items():
        passes = gate.measured is not None and gate.limit is not None and gate.measured <= gate.limit
        if gate.passed != passes:
            yield f"{name} {'passed' if gate.passed else 'failed'} with {gate.measured} measured, limit {gate.limit}"
    if known.ranked != all(gate.passed for gate in known.gates.values()):
        yield f"{'may' if known.ranked else 'may not'} be ranked, against its gates"


def _data(record: Record, expected: Expected) -> Iterator[str]:
    """The stream of data begins as the reviewer's own, and is marked at every power of two."""
    if record.spec.stop is None:
        return
    steps, found = record.budget.used.steps, stream_by_step(record)
    marks = {1 << power for power in range(steps.bit_length())}
    if record.status == "ok" and {*found} != marks | {steps}:
        yield f"{len(found)} hashes of its data, not those of {steps} steps"
    for step, known in expected.stream.items():
        if step in found and found[step] != known:
            yield f"consumed other batches by step {step} than the suite gives"
            break


CHECKS = {"scores": _scores, "budget": _budget, "size": _size, "curve": _curve, "gates": _gates, "data": _data}
"""The checks of a record, by what a finding calls them."""


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=CLOSE)

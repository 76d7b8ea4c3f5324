"""What must hold of a record by itself, whoever made it: its numbers follow from each other.

Nothing is built and torch is not loaded, so that boards check every record. `harness.records.together` compares records
with each other; `harness.execute.recompute` builds data and models, and scores weights again.
"""

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from harness.records.meters import LOG_POINTS, Meters, StopRule, crossed
from harness.records.parts import plain
from harness.records.record import STATUSES, CurvePoint, Origin, Record
from zoo.types import Role

Problem: TypeAlias = "tuple[str, str]"
"""What was checked, and why it does not hold."""
CLOSE = 1e-6
"""How far numbers may lie apart, relative, that are computed from each other."""
IN_TIME: tuple[Role, ...] = ("lm", "seq2seq")
"""Roles with an order in time."""
FLOAT64, AS_SCORED = (1e-9, 1e-5), 1e-4
"""Limits on differences between logits: in float64, or less where a model computes in less; and as they were scored."""
GATES: dict[str, tuple[float, ...]] = {
    "installed_code": (0,),
    "data_order": (0,),
    "test_overlap": (),  # at least 2%; more where examples repeat by chance
    "repeatable": (0, 1e-6),
    "evaluation_frozen": (0,),
    "causal": (*FLOAT64, AS_SCORED),
    "gradient_leak": (*FLOAT64, AS_SCORED),
    "untrained": (0.1, 0.15),
    "held_out_gap": (0.05, 0.1, 0.15, 0.25),
    "normalised": (1e-3,),
    "answers_unseen": (1e-6,),
    "batch_size": (*FLOAT64, AS_SCORED),
    "batch_neighbours": (*FLOAT64, AS_SCORED),
    "weights_alone": (1e-5,),
    "matched_size": (),  # what the suite allows
    "within_budget": (0, 0.01, 0.05, 1),
    "declared_size": (0.05,),
    "decodes": (*FLOAT64, 0),
}
"""Every gate, and the limits it may have; `harness.gates` has them, and needs torch. A test compares the two."""
ORDERED, MATCHED = {"causal", "gradient_leak", "decodes"}, {"matched_size"}
"""Gates of roles with an order in time, and of runs that are matched in size."""
LATER_GATES = {"decodes", "installed_code"}
"""Those that records of an earlier zoobench lack; a board says which."""
MONTH = 30 * 86_400.0
"""Seconds."""
HALF = 32
"""Characters of each of the two hashes in a digest."""
SLACK = 60.0
"""Seconds by which a clock may have been set while a run was made."""
OLDER = Path(__file__).with_name("older.txt")
"""The records that were published before there were digests: their ids, and hashes of them and of their curves."""
PEAK = {"cpu": 1e13, "cuda": 1e16}
"""FLOPs a second that no thread of a CPU and no GPU makes: a core's matrix unit in bf16 makes 4e12 (1,024 a cycle, at
4 GHz), and the fastest GPU of 2025, by its maker, 2.5e15."""
BOUNDS = {"accuracy": 1.0, "exact": 1.0, "last": 1.0, "chrf": 100.0, "bleu": 100.0}
"""The largest value of a score; those left out have none. None is below zero."""
TELLING, DECIMALS = 1e-3, 9
"""Losses above the first and of more decimals than the second are no two models', nor splits', alike: below, float32
leaves few values, and with fewer decimals a loss is some simple fraction."""


def gates_for(role: Role, *, matched: bool) -> set[str]:
    """Names of the gates for a role, of a run that is matched in size or not."""
    return {*GATES} - (set() if role in IN_TIME else ORDERED) - (set() if matched else MATCHED)


def problems(record: Record) -> Iterator[Problem]:
    """Everything that cannot be as a record says; of a curve that is read from a file when one looks at it, nothing."""
    for what, check in CHECKS.items():
        if isinstance(record.curve, list) or what != "curve":
            try:
                yield from ((what, why) for why in check(record))
            except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
                yield what, f"is not as records are: {error}"


def digest_of(record: Record) -> str:
    """BLAKE2 of everything in a record but who vouches for it, and of its curve, one after the other.

    Each is of JSON with sorted keys and without spaces; the first covers the second. A curve that is read from a file
    when one looks at it is taken to have the hash that stands in the record.
    """
    curve = _hash(record.curve) if isinstance(record.curve, list) else record.digest[HALF:]
    return _hash(record.replace(digest="", origin=Origin(), curve=[]), curve) + curve


def _hash(part: Any, more: str = "") -> str:
    text = json.dumps(plain(part), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for number in ("NaN", "-Infinity", "Infinity"):  # as a file has them
        text = text.replace(number, "null")
    return blake2b((text + more).encode(), digest_size=HALF // 2).hexdigest()


def sealed(record: Record) -> Record:
    """The record with its digest."""
    return record.replace(digest=digest_of(record))


@cache
def _older() -> dict[str, list[list[str]]]:
    """By run id, the two hashes of each; some runs are of two suites."""
    known: dict[str, list[list[str]]] = {}
    for run_id, *hashes in map(str.split, OLDER.read_text(encoding="ascii").splitlines()):
        known.setdefault(run_id, []).append(hashes)
    return known


def older(record: Record) -> bool:
    """Whether a record is one of those that were published before there were digests.

    Answers that it gave since do not matter, nor does a curve that is read from a file when one looks at it.
    """
    if not (known := _older().get(record.run_id, [])):
        return False
    alone = record.replace(origin=Origin(), curve=[])
    found = {_hash(one)[:16] for one in (alone, alone.replace(lm_eval=None))}
    curve = _hash(record.curve)[:16] if isinstance(record.curve, list) else ""
    return any(whole in found and curve in ("", its) for whole, its in known)


def _digest(record: Record) -> Iterator[str]:
    """The digest is the record's; only what was published before there were digests has none."""
    if record.digest and record.digest != digest_of(record):
        yield "was changed after it was written: its digest is another"
    elif not record.digest and not older(record):
        yield "has none, and is none of the records that were published before there were digests"


def _identity(record: Record) -> Iterator[str]:
    """A known status, an id that is the hash of spec and data, and an error where it did not end well."""
    if record.status not in STATUSES:
        yield f"unknown status {record.status!r}"
    if record.run_id != record.spec.run_id:
        yield f"run id {record.run_id} is not the hash of its own spec and data ({record.spec.run_id})"
    if (record.status == "ok") != (record.error is None):
        yield f"its status is {record.status}, its error {record.error.kind if record.error else 'none'}"
    if record.status not in ("ok", "diverged") and (record.size or record.curve or record.budget.used.steps):
        yield f"its status is {record.status}; only what ended well, or diverged, was measured"
    if (record.external is not None) != (record.spec.pretrained and record.status == "ok"):
        yield "says where published weights came from, or not, against its architecture"


def _scores(record: Record) -> Iterator[str]:
    """What ended well has the scores its kind has, and nothing else has any; they are possible, and fit each other."""
    metrics, spec = record.metrics, record.spec
    own = {spec.evaluate.split or "valid"} if spec.kind == "trial" else {"valid", "test"}
    scored = {split for split in ("tune", "valid", "test") if metrics.on(split)}
    if scored != (own if record.status == "ok" else set()):
        yield f"scored on {', '.join(sorted(scored)) or 'nothing'}, not on {', '.join(sorted(own))} ({record.status})"
    expected = {metrics.primary, *metrics.also, *(metrics.valid or metrics.on("tune"))}
    for split in scored:
        scores = metrics.on(split)
        if {*scores} != expected:
            yield f"has the scores {', '.join(scores)} on {split}, not {', '.join(sorted(expected))}"
        yield from (f"{why} on {split}" for name in scores for why in _impossible(name, scores))
    for name, loss in telling(record, "valid").items() & telling(record, "test").items():
        yield f"{name} is {loss} on valid and on test, to the last digit"
    value = metrics.chance
    if value is not None and not 0 <= value < math.inf:
        yield f"chance is {value}"


def telling(record: Record, split: str) -> dict[str, float]:
    """The losses on a split that no other model, nor this one on another split, has to the last digit by chance."""
    losses = {name: loss for name, loss in record.metrics.on(split).items() if name.partition("@")[0] == "loss"}
    return {name: loss for name, loss in losses.items() if loss and loss > TELLING and round(loss, DECIMALS) != loss}


def _impossible(name: str, scores: dict[str, float]) -> Iterator[str]:
    """Why one score cannot be, beside the others of its split; a value that is None was no finite number."""
    value, (base, at, multiple) = scores[name], name.partition("@")
    if value is None:
        return
    if not 0 <= value <= BOUNDS.get(base, math.inf):
        yield f"{name} is {value:g}"
    loss = scores.get(f"loss{at}{multiple}")
    if base.startswith("bits_per") and loss is not None and value > loss / math.log(2) * (1 + CLOSE):
        yield f"{name} is {value:g}, at most {loss / math.log(2):g} by its loss"
    if base == "exact" and (last := scores.get(f"last{at}{multiple}")) is not None and last < value - CLOSE:
        yield f"{name} is {value:g}, at most {last:g} by its last tokens"


def _budget(record: Record) -> Iterator[str]:
    """Steps, tokens and FLOPs are those of whole steps, as many as the stop rule allows; speeds follow from them."""
    budget, rule = record.budget, record.spec.stop
    used = budget.used
    if budget.stop != rule:
        yield "its stop rule is not that of its spec"
    if min(used.steps, used.tokens, used.flops, used.seconds) < 0 or not math.isfinite(used.seconds):
        yield "a meter is below zero"
    if rule is None or not used.steps:
        if used != Meters() or (rule and record.status in ("ok", "diverged")):
            yield f"used {used.tokens} tokens in {used.steps} steps"
        return
    if used.tokens % used.steps or used.flops % used.steps:
        yield f"{used.tokens} tokens and {used.flops} FLOPs in {used.steps} steps"
    step = Meters(used.tokens // used.steps, 1, round(used.flops / used.steps))
    if not close(used.flops, (budget.flops_per_token or 0.0) * used.tokens):
        yield f"{used.flops} FLOPs for {used.tokens} tokens of {budget.flops_per_token} each"
    before = Meters(used.tokens - step.tokens, used.steps - 1, used.flops - step.flops, used.seconds)
    if record.status == "ok" and not (rule.done(used, step) or budget.reached):
        yield f"ended after {used.of(rule.meter):g} {rule.meter} of {rule.limit:g}"
    elif used.steps > 1 and rule.meter != "seconds" and rule.done(before, step):
        yield f"used {used.of(rule.meter):g} {rule.meter} of {rule.limit:g}"
    if record.status == "ok" and rule.target is None and budget.reached is not None:
        yield "says whether a target was reached, and has none"
    if record.status == "ok" and isinstance(record.curve, list) and budget.reached != _reached(record):
        yield f"says that {rule.target} was {'' if budget.reached else 'not '}reached; its scores say otherwise"


def _reached(record: Record) -> bool | None:
    """Whether a score on valid reached the target, None without one."""
    rule, metrics = record.spec.stop, record.metrics
    if rule is None or rule.target is None:
        return None
    scores = [metrics.score(record.spec.evaluate.split or "valid")]
    scores += [(point.valid or {}).get(metrics.primary) for point in record.curve]
    return any(rule.reached(score, higher_is_better=metrics.higher_is_better) for score in scores)


def _speed(record: Record) -> Iterator[str]:
    """Tokens a second, and the times of a reference: each follows from the others."""
    used, speed, reference = record.budget.used, record.speed, record.speed.reference
    rate = speed.train_tokens_per_s
    if (rate is None) != (not used.seconds) or (rate is not None and not close(rate * used.seconds, used.tokens)):
        yield f"{rate} tokens a second, but {used.tokens} in {used.seconds:g} s"
    made = record.provenance
    units = made.devices * (made.threads or 1 if made.device == "cpu" else 1)
    if made.device in PEAK and used.flops > PEAK[made.device] * units * used.seconds:
        yield f"{used.flops / units:.3g} FLOPs by each thread or GPU in {used.seconds:g} s: none can"
    inference = {
        "decodes a token": (speed.decode_seconds, speed.decode_relative),
        "answers an example": (speed.latency_seconds, speed.latency_relative),
    }
    for does, times in inference.items():
        if times != (None, None) and not all(value is not None and 0 < value < math.inf for value in times):
            yield f"{does} in {times[0]} s, {times[1]} times as fast as its reference"
    relative, steps = speed.relative, speed.seconds_in_reference_steps
    timed = reference is not None and reference.problem is None and bool(used.steps)
    if reference is None or not timed:
        if relative is not None or steps is not None:
            yield "a speed relative to a reference that was not timed"
        return
    if relative is None or steps is None or not close(relative * steps, used.steps):
        yield f"{relative} times as fast as its reference, and {steps} of its steps, in {used.steps} steps"
    if (reference.architecture, reference.width, reference.depth, reference.heads) != ("pre_ln", 64, 2, 2):
        yield "was timed beside another reference"
    seconds, own, count = reference.step_seconds, reference.tokens_per_s, reference.steps
    if not (seconds and own and close(seconds * own * used.steps, used.tokens)):
        yield f"its reference reads {own} tokens a second, one step in {seconds} s"
    if not (count and count >= 1 and reference.parameters and reference.drift and reference.drift >= 1):
        yield "its reference was timed over no steps"


def _size(record: Record) -> Iterator[str]:
    """A size that meets its target, by its own count of parameters or state."""
    size, match = record.size, record.spec.match
    if size is None:
        if record.status in ("ok", "diverged"):
            yield "no size"
        return
    if not 0 <= size.params_non_embedding <= size.params or size.width < 1 or size.depth < 0:
        yield f"{size.params} parameters, {size.params_non_embedding} of them inside, {size.width} wide"
    if size.params_active is not None and not 0 <= size.params_active <= size.params_non_embedding:
        yield f"{size.params_active} parameters in use at a step, of {size.params_non_embedding}"
    peak, state = record.memory.peak_bytes, size.state_bytes
    if (peak is not None and record.memory.before_bytes is None and peak < 4 * size.params) or (state or 0) < 0:
        yield f"{size.params} parameters in {peak} bytes"
    if match is None:
        if size.target is not None or size.mismatch is not None:
            yield f"matched to {size.target}; its spec matches nothing"
        return
    if record.spec.pretrained:
        return
    counts = {"total": size.params, "non_embedding": size.params_non_embedding}
    counts["active"] = size.params_non_embedding if size.params_active is None else size.params_active
    reached = {"params": counts[match.count], "state_bytes": state}.get(match.meter)
    if size.target != match.target or size.mismatch is None:
        yield f"matched to {size.target}, not to {match.target:g}"
    elif reached is not None and not abs(reached / match.target - 1 - size.mismatch) <= CLOSE:
        yield f"{reached} {match.meter} are not {size.mismatch:+.2%} off {match.target:g}"
    elif not abs(size.mismatch) <= match.tolerance and record.eligibility.ranked:
        yield f"{size.mismatch:+.2%} off {match.target:g}, {match.tolerance:.1%} allowed, and yet it may be ranked"


def _curve(record: Record) -> Iterator[str]:
    """A curve rises step by whole step, has a point wherever one is due, and ends where and as the run did."""
    curve, used, rule = record.curve, record.budget.used, record.spec.stop
    if rule is None or not used.steps:
        if curve:
            yield "a curve without training"
        return
    if record.status == "ok" and (not curve or not _same(curve[-1], used)):
        yield "does not end where the run did"
    if record.status == "diverged" and curve and curve[-1].steps >= used.steps:
        yield f"is finite to the end, after {used.steps} steps, and yet it diverged"
    if any(not _rises(one, two) for one, two in pairwise(curve)):
        yield "does not rise in tokens, steps, FLOPs and seconds"
    cost = (used.tokens / used.steps, used.flops / used.steps)
    if any((p.tokens, p.flops) != (p.steps * cost[0], p.steps * cost[1]) for p in curve):
        yield "its tokens and FLOPs are not those of its steps"
    if any(point.loss is None or not 0 <= point.loss < math.inf for point in curve):
        yield "a loss is below zero or no number"
    if rule.meter != "seconds":
        yield from _due(record, rule)
    for point in curve:
        if not point.valid:
            continue
        for name in point.valid:
            yield from (f"{why} after {point.steps} steps" for why in _impossible(name, point.valid))
        if {*point.valid} != {*(record.metrics.valid or record.metrics.on("tune") or point.valid)}:
            yield f"has other scores after {point.steps} steps than at the end"
    yield from _per_nat(record)
    last = curve[-1].valid if curve and record.status == "ok" else None
    if record.digest and record.status == "ok" and record.metrics.valid and last is None:
        yield "its last point has no scores on valid"
    if last and record.metrics.valid and last != record.metrics.valid:
        yield "its last scores on valid are not those of the run"


def _per_nat(record: Record) -> Iterator[str]:
    """Bits per nat are the same along the way as at the end: both are of the same examples."""
    end = record.metrics.valid
    for name in (name for name in end if name.startswith("bits_per")):
        loss = "".join(("loss", *name.partition("@")[1:]))
        points = [point for point in record.curve if point.valid and point.valid.get(name) and point.valid.get(loss)]
        if any(not close(p.valid[name] * end[loss], p.valid[loss] * end[name]) for p in points if p.valid):
            yield f"{name} and {loss} do not fit each other along the way"


def _due(record: Record, rule: StopRule) -> Iterator[str]:
    """A point stands at each hundredth of the budget, and is scored as often as the spec says."""
    used, every = record.budget.used, record.spec.evaluate.every
    cost = [used.tokens // used.steps, 1, used.flops // used.steps]

    def progress(steps: int) -> float:
        return rule.progress(Meters(cost[0] * steps, steps, cost[2] * steps))

    at = 0
    for point in record.curve:
        last, before, now = point.steps == used.steps, progress(point.steps - 1), progress(point.steps)
        due = crossed(before, now, 1 / LOG_POINTS) or (last and record.status == "ok")
        if not due or crossed(progress(at), before, 1 / LOG_POINTS):
            yield f"a point after {point.steps} steps, where none is due, or none before, where one is"
        if not last and bool(point.valid) != crossed(before, now, every):
            yield f"is {'' if point.valid else 'not '}scored after {point.steps} steps"
        at = point.steps


def _same(point: CurvePoint, used: Meters) -> bool:
    return all(close(getattr(point, name), getattr(used, name)) for name in ("tokens", "steps", "flops", "seconds"))


def _rises(one: CurvePoint, two: CurvePoint) -> bool:
    return one.tokens < two.tokens and one.steps < two.steps and one.flops <= two.flops and one.seconds <= two.seconds


def _gates(record: Record) -> Iterator[str]:
    """Every gate that applies was judged but those the spec skips, with its own limit; outcomes follow from numbers."""
    spec, known = record.spec, record.eligibility
    if spec.kind == "trial" or record.status != "ok" or spec.pretrained:
        if known.gates or known.ranked:
            yield "was judged, though no final run that ended well"
        return
    skipped, given = {*spec.evaluate.skip_gates}, {*known.gates}
    if {*known.skipped} != skipped:
        theirs, ours = (", ".join(sorted(names)) or "none" for names in (known.skipped, skipped))
        yield f"skipped {theirs}; its spec skips {ours}"
    matched = spec.match is not None and record.size is not None and record.size.mismatch is not None
    wanted = gates_for(spec.role, matched=matched) - skipped - (LATER_GATES - given)
    if wanted != given:
        lacking, more = ", ".join(sorted(wanted - given)), ", ".join(sorted(given - wanted))
        yield f"not judged by {lacking}" if lacking else f"judged by {more}, which this zoobench does not know here"
    for name, gate in known.gates.items():
        passes = gate.measured is not None and gate.limit is not None and gate.measured <= gate.limit
        if gate.passed != passes:
            yield f"{name} {'passed' if gate.passed else 'failed'} with {gate.measured} measured, limit {gate.limit}"
        allowed = (spec.match.tolerance,) if name in MATCHED and spec.match else GATES.get(name, ())
        if (gate.limit not in allowed if allowed else (gate.limit or 0) < 0.02) and (gate.passed or gate.limit):
            yield f"{name} has the limit {gate.limit}, not {' or '.join(f'{one:g}' for one in allowed) or '0.02'}"
        if name in MATCHED and record.size and gate.measured != abs(record.size.mismatch or 0.0):
            yield f"{name} measured {gate.measured}; its size is {record.size.mismatch} off"
    if known.ranked != all(gate.passed for gate in known.gates.values()):
        yield f"{'may' if known.ranked else 'may not'} be ranked, against its gates"


def _data(record: Record) -> Iterator[str]:
    """The stream of data is hashed at the end and at every power of two."""
    if record.spec.stop is None:
        return
    steps, found = record.budget.used.steps, stream_by_step(record)
    marks = {1 << power for power in range(steps.bit_length())}
    if steps and record.status == "ok" and not record.data.stream_hash:
        yield "no hash of the data it consumed"
    elif record.status == "ok" and {*found} != marks | {steps}:
        yield f"{len(found)} hashes of its data, not those of {steps} steps"
    if record.data.stream_marks.get(str(steps), record.data.stream_hash) != record.data.stream_hash:
        yield f"two hashes of its data after {steps} steps"
    if any(not re.fullmatch("[0-9a-f]{32}", known) for known in found.values()):
        yield "a hash of its data is none"


def stream_by_step(record: Record) -> dict[int, str]:
    """The hashes of the data that a run consumed, by the number of steps after which each was taken."""
    marks = {int(step): known for step, known in record.data.stream_marks.items()}
    return marks | ({record.budget.used.steps: record.data.stream_hash} if record.data.stream_hash else {})


def _provenance(record: Record) -> Iterator[str]:
    """What was trained says with what, and its stretches of training lead from the first step to the last."""
    known, steps, rule = record.provenance, record.budget.used.steps, record.spec.train
    if not steps or rule is None:
        return
    if not (known.zoobench and known.hardware and known.system and known.packages.get("torch")):
        yield "does not say where and with what it was made"
    if known.device not in ("cpu", "cuda") or known.precision not in ("fp32", "bf16"):
        yield f"made on {known.device} in {known.precision}"
    elif rule.precision not in ("auto", known.precision):
        yield f"made in {known.precision}; its spec says {rule.precision}"
    if any(not form or len(form) > 200 for form in known.kernels.values()):
        yield "a kernel without a name"
    segments = record.segments
    places = [0, *(one.from_step for one in segments[1:]), steps]
    if not segments or [one.from_step for one in segments] != places[:-1] or places != sorted(places):
        yield "its stretches of training do not lead from the first step to the last"
    elif record.status == "ok" and (segments[-1].to_step != steps or segments[-1].threads != known.threads):
        yield f"its training ends at step {segments[-1].to_step} on {segments[-1].threads} threads"
    elif any(one.end is not None and not -SLACK < one.end - one.start < MONTH for one in segments):
        yield "a stretch of training ends before it starts, or months later"
    elif max(one.end or one.start for one in segments) > time.time() + 86_400:
        yield "was trained in the future"
    elif all(ends := [one.end for one in segments]):
        there = sum(end - one.start for one, end in zip(segments, ends, strict=True) if end)
        if record.budget.used.seconds > there + SLACK * len(segments):
            yield f"{record.budget.used.seconds:g} s of training in {there:g} s"


def _answers(record: Record) -> Iterator[str]:
    """Answers to lm-evaluation-harness are a language model's, and possible."""
    asked = record.lm_eval
    if asked is None:
        return
    if record.spec.role != "lm" or record.status != "ok":
        yield "answers questions, but is no language model that ended well"
    for name, answer in asked.tasks.items():
        for metric, found in answer.metrics.items():
            top = 1.0 if metric.startswith(("acc", "exact")) else math.inf
            wrong = found.value is not None and not (found.value <= top and (top == math.inf or found.value >= 0))
            if wrong or (found.stderr is not None and found.stderr < 0):
                yield f"{metric} of {name} is {found.value}"


CHECKS: dict[str, Callable[[Record], Iterator[str]]] = {
    "record": _identity,
    "digest": _digest,
    "scores": _scores,
    "budget": _budget,
    "speed": _speed,
    "size": _size,
    "curve": _curve,
    "gates": _gates,
    "data": _data,
    "provenance": _provenance,
    "answers": _answers,
}
"""The checks of a record, by what a finding calls them."""


def close(one: float, other: float) -> bool:
    """Whether two numbers are equal but for rounding."""
    return math.isclose(one, other, rel_tol=CLOSE)

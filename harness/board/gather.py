"""Records of runs, gathered into the rows of a board, each with the reasons why it may not be ranked."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.board.model import Row
from harness.records.spec import PRETRAINED

Record = Mapping[str, Any]
SEVERITY = ("ok", "diverged", "timeout", "oom", "failed", "unsupported")
"""From best to worst; a status that is not listed counts as `failed`."""
EQUAL = {
    "budget": "spec.stop",
    "size target": "spec.match",
    "metric": "metrics.primary",
    "data fingerprint": "data.fingerprint",
}
"""What every ranked record of one task must have in common, by path; the stream hash is compared seed by seed."""


def dig(record: Record, path: str) -> Any:
    """The value at a dotted path; None where any part of it is missing."""
    value: Any = record
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def canonical(records: Iterable[Record]) -> list[Record]:
    """Records in an order that depends on nothing but what they say; exact repeats of a run are dropped."""
    keyed = sorted((json.dumps(r, sort_keys=True, default=str), i, r) for i, r in enumerate(records))
    runs: dict[str, Record] = {}
    for text, _, record in keyed:
        runs.setdefault(str(record.get("run_id") or text), record)
    return sorted(runs.values(), key=lambda r: (column_of(r), name_of(r), seed_of(r), str(r.get("run_id"))))


def name_of(record: Record) -> str:
    return str(dig(record, "spec.architecture_label") or dig(record, "spec.architecture"))


def task_of(record: Record) -> str:
    return str(dig(record, "spec.task_label") or dig(record, "spec.task"))


def column_of(record: Record) -> tuple[str, str]:
    """The task and the track that a record is ranked in."""
    return task_of(record), str(dig(record, "spec.track") or "")


def seed_of(record: Record) -> int:
    return int(dig(record, "spec.seed") or 0)


def is_external(record: Record) -> bool:
    """Whether its weights were made elsewhere (published weights): it is shown, and nothing is compared with it."""
    return dig(record, "spec.architecture") == PRETRAINED


def score_of(record: Record) -> float | None:
    """The finite test score of a run that ended well; with a target, what it used to get there, if it did."""
    if record.get("status") != "ok":
        return None
    if goal := goal_of(dig(record, "spec.stop")):
        return finite(dig(record, f"budget.used.{goal.meter}")) if dig(record, "budget.reached") else None
    return finite(dig(record, f"metrics.test.{dig(record, 'metrics.primary')}"))


def finite(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Goal:
    """A score that a run is to reach; rows are then ranked by what they used of a meter."""

    meter: str
    target: float

    @property
    def unit(self) -> str:
        return {"seconds": "s", "flops": "FLOP"}.get(self.meter, "")


def goal_of(stop: Any) -> Goal | None:
    """The goal of a stop rule, if it has one."""
    if not isinstance(stop, Mapping) or finite(stop.get("target")) is None:
        return None
    meter = next((str(name) for name in stop if name != "target"), "")
    return Goal(meter, float(stop["target"]))


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by architecture."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(name_of(record), []).append(record)
    return groups


MACHINE = ("hardware", "threads", "precision")
"""What runs must have in common where their seconds, or ratios of these, are compared."""


def machine_of(record: Record) -> tuple[str, ...]:
    """`MACHINE` of a run."""
    return tuple(str(dig(record, f"provenance.{name}") or "unknown") for name in MACHINE)


def differing(machines: Sequence[tuple[str, ...]]) -> str:
    """Which of `MACHINE` differ: `hardware and threads`."""
    return " and ".join(name for i, name in enumerate(MACHINE) if len({one[i] for one in machines}) > 1)


def by_seconds(record: Record) -> bool:
    """Whether seconds end the run."""
    return "seconds" in (dig(record, "spec.stop") or {})


@dataclass(frozen=True, slots=True)
class Common:
    """What most records of one task agree on. A tie is no agreement: nobody can say which side is right."""

    terms: dict[str, Hashable | None]
    hashes: dict[int, Hashable | None]
    upto: dict[int, int | None]
    """Per seed, the step at which the hashes are compared; None for the end, where all runs are equally long."""
    machine: Hashable | None

    def agreed(self, name: str) -> Any:
        """The term itself, as it stands in the records; None where they do not agree on any."""
        text = self.terms.get(name)
        return json.loads(text) if isinstance(text, str) and text[:1] in "{n" else text

    @property
    def goal(self) -> Goal | None:
        """What the runs are to reach, if they are ranked by how soon they do."""
        return goal_of(self.agreed("budget"))


def common(records: Sequence[Record]) -> Common:
    """Only runs that ended well are asked: one that stopped early has consumed less."""
    done = [r for r in records if r.get("status") == "ok" and not is_external(r)]
    terms = {name: majority([_frozen(dig(r, path)) for r in done]) for name, path in EQUAL.items()}
    seeds = sorted({seed_of(r) for r in done})
    upto = {s: _common_step([r for r in done if seed_of(r) == s]) for s in seeds}
    hashes = {s: majority([stream_at(r, upto[s]) for r in done if seed_of(r) == s]) for s in seeds}
    return Common(terms, hashes, upto, majority([machine_of(r) for r in done]))


def _common_step(runs: Sequence[Record]) -> int | None:
    """The last power of two that every run reached; None where all made the same number of steps."""
    steps = {int(dig(r, "budget.used.steps") or 0) for r in runs}
    return None if len(steps) == 1 else 1 << (max(1, min(steps)).bit_length() - 1)


def stream_at(record: Record, step: int | None) -> str:
    """The hash of the batches a run consumed, all of them or the first `step`."""
    digest = dig(record, "data.stream_hash") if step is None else dig(record, f"data.stream_marks.{step}")
    return str(digest or "")


def majority(values: Sequence[Hashable]) -> Hashable | None:
    top = Counter(values).most_common(2)
    if not top or (len(top) == 2 and top[0][1] == top[1][1]):
        return None
    return top[0][0]


def _frozen(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def row(name: str, records: Sequence[Record], shared: Common) -> Row:
    """One architecture's row, not yet ranked. `records` are in canonical order."""
    runs = list({seed_of(r): r for r in reversed(records)}.values())[::-1]
    scored = [(seed_of(r), score) for r in runs if (score := score_of(r)) is not None]
    scores = [score for _, score in scored]
    mean = math.fsum(scores) / len(scores) if scores else None
    rates = {dig(r, "spec.train.lr") for r in runs}
    sizes: Mapping[str, Any] = next((r["size"] for r in runs if r.get("size")), {})
    return Row(
        architecture=name,
        status=max((str(r.get("status")) for r in runs), key=_severity),
        reason="; ".join([*_failures(runs), *_disqualified(records, shared)]),
        mean=mean,
        low=None,
        high=None,
        sd=_sd(scores),
        seeds=[seed for seed, _ in scored],
        scores=scores,
        rank_low=None,
        rank_high=None,
        letters="",
        also=_also(runs),
        params=sizes.get("params"),
        params_non_embedding=sizes.get("params_non_embedding"),
        mismatch=max(_values(runs, "size.mismatch"), key=abs, default=None),
        flops=_mean(runs, "budget.used.flops"),
        tokens=_mean(runs, "budget.used.tokens"),
        seconds=_mean(runs, "budget.used.seconds"),
        tokens_per_s=_mean(runs, "speed.train_tokens_per_s"),
        relative_speed=_mean(runs, "speed.relative"),
        reference_step_seconds=_mean(runs, "speed.reference.step_seconds"),
        peak_memory=_whole(max(_values(runs, "memory.peak_bytes"), default=None)),
        state_bytes=sizes.get("state_bytes"),
        lr=finite(rates.pop()) if len(rates) == 1 else None,
        width=sizes.get("width"),
        depth=sizes.get("depth"),
    )


def _severity(status: str) -> int:
    return SEVERITY.index(status if status in SEVERITY else "failed")


def _failures(runs: Sequence[Record]) -> list[str]:
    """Like "2 of 3 seeds diverged: loss is not finite at step 12", worst first."""
    found = []
    for status in sorted({str(r.get("status")) for r in runs} - {"ok"}, key=lambda s: (-_severity(s), s)):
        failed = [r for r in runs if str(r.get("status")) == status]
        message = str(dig(failed[0], "error.message") or "").strip()
        if status == "unsupported" and len(failed) == len(runs):
            found.append(message or status)
            continue
        count = f"{len(failed)} of {len(runs)} seeds {status}"
        found.append(f"{count}: {message}" if message else count)
    return found


def _disqualified(records: Sequence[Record], shared: Common) -> list[str]:
    """Why runs that ended well may still not be ranked; each reason names its seeds."""
    if any(is_external(r) and r.get("status") == "ok" for r in records):
        return ["external: trained elsewhere, on other data and budgets; shown, not ranked"]
    seeds: dict[str, set[int]] = {}
    counts = Counter(seed_of(r) for r in records)
    done = [r for r in records if r.get("status") == "ok"]
    for record in done:
        repeated = ["several runs of the same seed"] if counts[seed_of(record)] > 1 else []
        for reason in [*repeated, *_objections(record, shared)]:
            seeds.setdefault(reason, set()).add(seed_of(record))
    everyone = {seed_of(r) for r in records}
    return [*_failed_gates(done, everyone), *(reason + _only(s, everyone) for reason, s in seeds.items())]


def _only(seeds: set[int], everyone: set[int]) -> str:
    return "" if seeds == everyone else f" (seed {', '.join(map(str, sorted(seeds)))})"


def _failed_gates(records: Sequence[Record], everyone: set[int]) -> list[str]:
    """Every gate that any seed failed, with the worst that was measured."""
    failed: dict[str, list[Record]] = {}
    for record in records:
        for name, gate in (dig(record, "eligibility.gates") or {}).items():
            if not gate.get("passed"):
                failed.setdefault(name, []).append(record)
    found = []
    for name, runs in sorted(failed.items()):
        gates = [dig(r, f"eligibility.gates.{name}") for r in runs]
        worst = max(gates, key=lambda gate: math.inf if finite(gate.get("measured")) is None else gate["measured"])
        told = f"measured {_short(worst.get('measured'))}, limit {_short(worst.get('limit'))}"
        found.append(f"failed gate {name} ({told}){_only({seed_of(r) for r in runs}, everyone)}")
    return found


def _objections(record: Record, shared: Common) -> list[str]:
    found = []
    if score_of(record) is None:
        goal = goal_of(dig(record, "spec.stop"))
        found.append("no finite test score" if goal is None else f"did not reach {goal.target:g}")
    gates = (dig(record, "eligibility.gates") or {}).values()
    if dig(record, "eligibility.ranked") is not True and all(gate.get("passed") for gate in gates):
        found.append("did not pass the gates")
    mismatch, tolerance = finite(dig(record, "size.mismatch")), finite(dig(record, "spec.match.tolerance"))
    if mismatch is not None and tolerance is not None and abs(mismatch) > tolerance:
        found.append(f"size off its target by {mismatch:+.1%}, tolerance {tolerance:.1%}")
    found += _overspent(record)
    digest = stream_at(record, shared.upto[seed_of(record)])
    if not digest:
        found.append("no data hash")
    elif digest != (most := shared.hashes[seed_of(record)]):
        found.append("data hash differs from the others'" if most else "data hashes disagree and none has a majority")
    for name, path in EQUAL.items():
        if _frozen(dig(record, path)) != (most := shared.terms[name]):
            found.append(f"{name} differs from the others'" if most else f"no majority agrees on the {name}")
    if by_seconds(record) and (own := machine_of(record)) != (usual := shared.machine):
        alike = f"other {differing([own, usual])} than the others'" if isinstance(usual, tuple) else None
        what = alike or "no majority agrees on the hardware"
        found.append(f"{what}; seconds are not comparable")
    return found


def _overspent(record: Record) -> list[str]:
    """A run stays within tokens, steps and FLOPs; the step in which seconds run out is judged by the run's own gate."""
    stop = dig(record, "spec.stop")
    for meter in ("tokens", "steps", "flops"):
        limit = finite(stop.get(meter)) if isinstance(stop, Mapping) else None
        used = finite(dig(record, f"budget.used.{meter}"))
        if limit is not None and used is not None and used > limit * (1 + 1e-9):
            return [f"used {used:.4g} {meter}, more than its budget of {limit:.4g}"]
    return []


def _short(number: Any) -> str:
    return f"{number:.3g}" if isinstance(number, float) else str(number)


def _values(runs: Sequence[Record], path: str) -> list[float]:
    return [v for r in runs if (v := finite(dig(r, path))) is not None]


def _mean(runs: Sequence[Record], path: str) -> float | None:
    """Over the runs that ended well."""
    values = _values([r for r in runs if r.get("status") == "ok"], path)
    return math.fsum(values) / len(values) if values else None


def _also(runs: Sequence[Record]) -> dict[str, float]:
    names = dict.fromkeys(name for r in runs for name in dig(r, "metrics.also") or ())
    found = {name: _mean(runs, f"metrics.test.{name}") for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _sd(scores: Sequence[float]) -> float | None:
    if len(scores) < 2:
        return None
    mean = math.fsum(scores) / len(scores)
    return math.sqrt(math.fsum((s - mean) ** 2 for s in scores) / (len(scores) - 1))

"""Planted records: what the harness would have left, with numbers chosen by the test."""

import dataclasses
from hashlib import blake2b
from typing import Any, TypeVar

from harness.records.meters import Meters, StopRule
from harness.records.record import (
    Budget,
    CurvePoint,
    Data,
    Eligibility,
    Error,
    Gate,
    Memory,
    Metrics,
    Provenance,
    Record,
    Size,
    Speed,
    empty_record,
)
from harness.records.spec import EvaluateSettings, MatchRule, RunSpec, TrainSettings

P = TypeVar("P")
MESSAGES = {
    "diverged": "loss is not finite at step 12",
    "oom": "out of memory",
    "unsupported": "TokenMLP looks both ways and cannot be made causal",
}
PASSED = Gate(passed=True, measured=0.0, limit=1e-4)
FAILED = Gate(passed=False, measured=0.3, limit=1e-4)


def change(part: P, **changes: Any) -> P:
    """A record, or a part of one, with other values at paths written with double underscores."""
    for path, value in changes.items():
        name, _, rest = path.partition("__")
        inner = change(getattr(part, name), **{rest: value}) if rest else value
        part = dataclasses.replace(part, **{name: inner})  # type: ignore[type-var]
    return part


def plant(architecture: str, seed: int, score: float | None = None, status: Any = "ok", **changes: Any) -> Record:
    """One record of a run on `text` that scored `score`, changed as by `change`."""
    scores = {} if score is None else {"loss": score * 0.69, "bits_per_byte": score}
    train = TrainSettings(1024, "adamw", 0.003, (0.9, 0.95), 0.1, "cosine", 0.05, 0.1, 1.0, "auto")
    match, stop = MatchRule("params", 400_000, 0.05), StopRule("tokens", 1_000_000)
    evaluate, name = EvaluateSettings(0.2, 8, 8), architecture
    spec = RunSpec(name, name, {}, "text", "text", {}, "lm", seed, "final", match, stop, train, evaluate)
    metrics = Metrics("bits_per_byte", (), False, 8.0, "bits/byte", scores, scores)
    record = empty_record(spec, "quick", metrics, status, None if status == "ok" else Error(status, MESSAGES[status]))
    record = record.replace(run_id=blake2b(f"{architecture}-{seed}".encode(), digest_size=8).hexdigest())
    if status != "unsupported":
        packages = {"torch": "2.9.0", "numpy": "2.4.6"}
        record = record.replace(
            size=Size(96, 4, 450_000, 401_000, 12_288, 400_000, 0.0025),
            budget=Budget(stop, used=Meters(999_936, 977, 2_400_000_000_000, 31.2)),
            data=Data("f00d", f"stream{seed}"),
            curve=[] if score is None else [_point(i, score) for i in range(1, 41)],
            speed=Speed(31_000.0),
            memory=Memory(180_000_000),
            eligibility=Eligibility(ranked=True, gates={"causality": PASSED}),
            provenance=Provenance("0.1.0", "abc1234", packages, "AMD EPYC, 2 cores", threads=1, precision="bf16"),
        )
    return change(record, **changes)


def _point(i: int, score: float) -> CurvePoint:
    tokens, value = i * 25_000, score + 4.0 * i**-0.8
    valid = {"bits_per_byte": value} if i % 8 == 0 else None
    return CurvePoint(tokens, i, 0, tokens / 31_000, value * 0.69, valid)

"""Suites that nobody should publish: names, notes, errors and scores chosen to break a page."""

import math

import pytest

from harness.records.meters import Meters
from harness.records.record import (
    CurvePoint,
    Data,
    Error,
    Gate,
    Metrics,
    Origin,
    Provenance,
    Size,
    Speed,
    empty_record,
)
from harness.records.store import Store

from ..made import make_spec

NAMES = (
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>", '"\'`onmouseover="alert(3)', "${alert(4)}",
    "{{ 7 * 7 }}{% raw %}", "$x_1^2$ \\textbf{b}", "**bold** [link](javascript:alert(5))", "\x1b[31mred\x1b[0m\x07",
    "two\nlines\ttab", "\u202eright to left", "x" * 300, "Case", "case", "CASE", "a/b", "a\\b", "a:b", "a?b#c%20", "..",
    ".", "__proto__", "constructor", "index",
    "toString", "=1+1", "a · b", "a--b", "a&b=c", "a,b", "datum.row", "a.b[0]",
)  # fmt: skip
TASKS = {
    "over 4 tasks": "rank",
    "<script>alert(6)</script>": "<b>loss</b>",
    "Text": "constructor",
    "text": "__proto__",
}


def record_of(name, task="text", metric="loss", value=1.0, seed=0, suite="odd", status="ok", **changes):
    """A run that passed its gates, with all that a page shows; `value` may be no number."""
    spec = make_spec(architecture_label=name, task_label=task, seed=seed, **changes)
    known = value is not None and math.isfinite(value)
    scores = {metric: value} if known else {}
    curve = [CurvePoint(8 * i, i, 9 * i, 0.1 * i, 3.0 / i, {metric: 3.0 / i}) for i in range(1, 5)] if known else []
    made = empty_record(spec, suite, Metrics(metric, higher_is_better=False, valid=scores, test=scores), status)
    gates = {f"gate {name}": Gate(passed=True, measured=value if known else None, limit=1e300, about=name)}
    return made.replace(
        curve=curve,
        size=Size(16, 1, 999, 500, 0 if seed else 64, 500.0, 0.0),
        budget=made.budget.replace(used=Meters(tokens=100, steps=12, flops=1000 + len(name), seconds=0.0)),
        data=Data("odd 1", "h" * 64),
        eligibility=made.eligibility.replace(ranked=status == "ok", gates=gates),
        speed=Speed(train_tokens_per_s=1e5),
        provenance=Provenance(hardware=name, packages={name: name}, kernels={name: name}, zoobench="1", threads=1),
        error=None if status == "ok" else Error("ValueError", f"{name}\n  {name}", name),
        origin=Origin("reported" if name == "case" else "reviewed", name),
    )


def write(root, name, records, **described):
    """Keep these records as a suite's; how many rows they make."""
    store = Store(name, root)
    for record in records:
        with pytest.MonkeyPatch.context() as patch:  # of older code: what has a digest must be sound
            patch.setattr("harness.records.store.sealed", lambda record: record)
            store.write(record)
    if described:
        store.describe(described)
    return len({record.spec.cell for record in records})


def write_all(root):
    """One suite for each way in which a board can be odd; how many rows they have."""
    rows = 0
    every = [
        record_of(name, task, metric, value=1.0 + i + 0.01 * seed, seed=seed, suite="odd")
        for task, metric in TASKS.items()
        for i, name in enumerate(NAMES if task == "text" else NAMES[-12:])
        for seed in range(2)
    ]
    about = {"about": " ".join(NAMES[:9]), "text": {name: [name] for name in NAMES}, "targets": {}}
    rows += write(root, "odd", every, suite="odd", **about)
    huge = (1e300, -1e-300, 5e-324, 0.0)
    rows += write(root, "numbers", [record_of(f"row {i}", value=v, suite="numbers") for i, v in enumerate(huge)])
    nothing = [record_of("nan", value=math.nan, suite="nothing"), record_of("none", value=None, suite="nothing")]
    rows += write(root, "nothing", nothing)
    failures = ("diverged", "oom", "timeout", "unsupported", "failed")
    rows += write(root, "failed", [record_of(name, value=None, status=name, suite="failed") for name in failures])
    rows += write(root, "<i>one & only", [record_of("pre_ln", suite="<i>one & only")])
    rows += write(
        root, "Many", [record_of(f"row {i}", value=i % 7 + 0.1 * s, seed=s) for i in range(60) for s in range(2)]
    )
    tracks = [
        record_of(name, task, value=1.0 + (i if track == "a · b" else -i) + 0.01 * s, seed=s, track=track)
        for i, name in enumerate(("pre_ln", "lstm", "mamba"))
        for task in ("text", "a · b")
        for track in ("a · b", "<u>")
        for s in range(3)
    ]
    rows += write(root, "tracks", tracks)
    return rows

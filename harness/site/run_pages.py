"""A page for each row of each board: its runs, their curves, gates and provenance, and how to make them again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import altair as alt

from harness.board.model import TaskBoard
from harness.board.tables import ranks
from harness.records.record import Gate, Record
from harness.site.parts import as_yaml, figure, provenance, suite_page
from harness.site.suites import Suite
from harness.site.views import CellView, amount, plain_table, slug
from harness.table.rows import Row
from harness.units import NONE, clock

if TYPE_CHECKING:
    from harness.site.build import Site


def address(suite: Suite, architecture: str, task: str) -> str:
    """The page of one row on one board."""
    return f"runs/{slug(suite.name)}/{slug(architecture)}/{slug(task)}.html"


def pages(site: Site, suite: Suite) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every page of a suite's rows that were run here or published."""
    for task in suite.board.tasks if suite.run_pages else ():
        for row in task.rows:
            if runs := suite.runs(task, row.architecture):
                yield address(suite, row.architecture, task.title), _context(site, suite, task, row, runs)


def _context(site: Site, suite: Suite, task: TaskBoard, row: Row, runs: list[Record]) -> dict[str, Any]:
    name = row.architecture
    trials = [r for r in suite.records if r.spec.kind == "trial" and r.spec.cell == runs[0].spec.cell]
    labels = [suite.name, name, task.task, *filter(None, [task.track]), str(runs[0].spec.seed)]
    spec = runs[0].spec.to_dict() | {"seed": [record.spec.seed for record in runs]}
    chart, page = curves(runs), site.pages.get(runs[0].spec.architecture)
    return {
        "title": f"{name} on {task.title}, {suite.name}",
        "suite": {"name": suite.name, "href": suite_page(suite)},
        "architecture": name,
        "task": task.title,
        "verdict": _verdict(task, row),
        "reason": row.reason,
        "href": f"../../../{page}" if page else "",
        "seeds": _seeds(runs),
        "command": shlex.join(["zoobench", "verify", "/".join(labels), "--rerun", "1"]),
        "charts": [figure("curves", f"Learning curves: {chart['description']}", chart)] if chart else [],
        "trials": _trials(trials) if trials else None,
        "gates": _gates(runs) if any(r.eligibility.gates for r in runs) else None,
        "config": as_yaml(spec),
        "provenance": provenance(runs),
    }


def _verdict(task: TaskBoard, row: Row) -> str:
    if row.mean is None:
        return f"No score: {row.status}."
    half = "" if row.low is None or row.high is None else f" ± {(row.high - row.low) / 2:.3f} (95%)"
    place = f", rank {ranks(row.ranks)} of {len(task.ranked)}" if row.ranks else ""
    return (
        f"{task.metric} {row.mean:.3f}{half}{f' {task.unit}' if task.unit else ''} over {len(row.seeds)} seeds{place}."
    )


def _seeds(runs: Sequence[Record]) -> Any:
    columns = {
        "run": lambda r: r.run_id,
        "seed": lambda r: r.spec.seed,
        "status": lambda r: r.status if r.error is None else f"{r.status}: {r.error.message}"[:200],
        "test": lambda r: r.metrics.score("test"),
        "valid": lambda r: r.metrics.score("valid"),
        "tokens": lambda r: amount(r.budget.used.tokens),
        "compute": lambda r: amount(r.budget.used.flops, "FLOP"),
        "time": lambda r: _time(r.budget.used.seconds),
        "memory": lambda r: amount(r.memory.peak_bytes, "B"),
        "made": lambda r: " by ".join(filter(None, (r.origin.kind, r.origin.contributor))),
        "data stream": lambda r: r.data.stream_hash[:12] or None,
    }
    return plain_table("seeds", columns, runs)


def _time(seconds: float | None) -> CellView:
    return CellView(clock(seconds), seconds) if seconds else CellView(NONE)


def _trials(trials: Sequence[Record]) -> Any:
    ordered = sorted(trials, key=lambda r: (r.spec.train.lr if r.spec.train else 0.0, r.run_id))
    columns: dict[str, Any] = {"run": lambda r: r.run_id}
    for name in {name: None for trial in ordered for name in trial.spec.point}:
        columns[name] = lambda r, name=name: r.spec.tuned(name)
    columns |= {
        "status": lambda r: r.status,
        "score": lambda r: r.metrics.score(r.spec.evaluate.split or "valid"),
        "tokens": lambda r: amount(r.budget.used.tokens),
    }
    return plain_table("trials", columns, ordered)


def _gates(runs: Sequence[Record]) -> Any:
    found = {name: None for run in runs for name in run.eligibility.gates}
    rows: list[tuple[str, Gate | None, bool | None]] = []
    for name in found:
        own = [run.eligibility.gates[name] for run in runs if name in run.eligibility.gates]
        worst = min(own, key=lambda gate: (gate.passed, -abs(gate.measured or 0.0)))
        rows.append((name, worst, all(gate.passed for gate in own)))
    rows += [(name, None, None) for name in sorted({skipped for run in runs for skipped in run.eligibility.skipped})]
    columns = {
        "gate": lambda row: row[0],
        "passed": lambda row: {True: "yes", False: "no", None: "skipped by the suite"}[row[2]],
        "measured": lambda row: row[1] and row[1].measured,
        "limit": lambda row: row[1] and row[1].limit,
        "about": lambda row: row[1].about if row[1] else "",
    }
    return plain_table("gates", columns, rows)


def curves(runs: Sequence[Record]) -> dict[str, Any] | None:
    """The validation score (the training loss without one) of every seed against tokens; None without curves."""
    metric = runs[0].metrics.primary
    scored = any(point.valid and metric in point.valid for run in runs for point in run.curve)
    points = [
        {"seed": str(run.spec.seed), "tokens": point.tokens, "score": float(f"{value:.6g}")}
        for run in runs
        for point in run.curve[:: max(1, len(run.curve) // 100)]
        if (value := (point.valid or {}).get(metric) if scored else point.loss) is not None
    ]
    if not points:
        return None
    title = f"{metric} on valid" if scored else "training loss, nats"
    description = f"{title} against tokens, a line for each of {len(runs)} seeds."
    return _curves_form() | {"datasets": {"runs": points}, "description": description}


@cache
def _curves_form() -> dict[str, Any]:
    """The chart without its data, in Vega-Lite."""
    chart = alt.Chart(alt.NamedData("runs")).mark_line(point={"size": 12})
    seed, tokens = alt.Color("seed:N"), alt.X("tokens:Q", axis=alt.Axis(format="~s", tickCount=6))
    score = alt.Y("score:Q", scale=alt.Scale(zero=False))
    lines = chart.encode(x=tokens, y=score, color=seed, tooltip=["seed:N", "tokens:Q", "score:Q"])
    form: dict[str, Any] = lines.properties(width="container", height=260, background="transparent").to_dict()
    return form

"""The display of runs under way: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from harness.records.spec import RunSpec
from harness.units import clock, short

Key: TypeAlias = "tuple[Any, ...]"


def key(spec: RunSpec) -> Key:
    """A key that is unique to a run within its suite."""
    number = spec.tuning.trial if spec.tuning else None
    return spec.kind, spec.cell, spec.seed, *spec.point.items(), number


class Live:
    """The state of a suite: per run step, loss, tokens/s and ETA; for the whole done, failed and ETA."""

    def __init__(self, work: Mapping[Key, float], console: Console) -> None:
        """`work` is the relative cost of each run, by `key`."""
        self.work, self.console = work, console
        self.began = time.monotonic()
        self.fractions: dict[Key, float] = {}
        self.started: dict[Key, float] = {}
        self.weight_done = 0.0
        self.done = self.failed = 0
        self.bars: Progress | None = None
        self.rows: dict[Key, TaskID] = {}
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[note]}"))
            self.bars = Progress(*columns, console=console, transient=True)
            self.suite = self.bars.add_task("all runs", total=sum(work.values()), note="")
        points = {part for run in work for part in run if type(part) is tuple}
        names = [name for name, _ in points]
        self.tuned = {name for name in names if names.count(name) > 1}

    def _title(self, spec: RunSpec) -> str:
        return spec.title(self.tuned)

    def __enter__(self) -> Live:
        if self.bars:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars:
            self.bars.stop()

    def event(self, spec: RunSpec, event: dict[str, Any]) -> None:
        """Show one event of a run."""
        run = key(spec)
        if event["event"] == "start":
            self._start(run, spec, event)
        elif event["event"] == "step":
            self._step(run, event)
        elif event["event"] == "note":
            self._print(f"{self._title(spec)}: {event['message']}", "yellow")
        elif event["event"] == "end":
            self._end(run, spec, event)
        if self.bars:
            self.bars.update(self.suite, completed=self._ready(), note=self._summary())

    def _start(self, run: Key, spec: RunSpec, event: dict[str, Any]) -> None:
        self.started[run], self.fractions[run] = time.monotonic(), 0.0
        if self.bars:
            note = f"resumed at step {event['resumed_at']}" if event["resumed_at"] else "starting"
            self.rows[run] = self.bars.add_task(self._title(spec), total=1.0, note=note)
        elif event["resumed_at"]:
            self.console.print(f"        {self._title(spec)}: goes on from step {event['resumed_at']}")

    def _step(self, run: Key, event: dict[str, Any]) -> None:
        self.fractions[run] = event["progress"]
        if not self.bars or run not in self.rows:
            return
        speed = event["tokens"] / event["seconds"] if event["seconds"] else 0.0
        left = event["seconds"] * (1 / event["progress"] - 1) if event["progress"] else 0.0
        note = f"step {event['steps']}  loss {event['loss']:.3f}  {short(speed)} tok/s  {clock(left)} left"
        self.bars.update(self.rows[run], completed=event["progress"], note=note)

    def _end(self, run: Key, spec: RunSpec, event: dict[str, Any]) -> None:
        self.fractions.pop(run, None)
        self.done += 1
        self.weight_done += self.work.get(run, 0.0)
        seconds = time.monotonic() - self.started.pop(run, time.monotonic())
        ok = event["status"] == "ok"
        self.failed += not ok
        if self.bars and run in self.rows:
            self.bars.remove_task(self.rows.pop(run))
        reason = "" if ok else f": {event['error'].message if event['error'] else ''}"
        line = f"[{self.done}/{len(self.work)}] {self._title(spec)}  {event['status']} in {clock(seconds)}{reason}"
        self._print(line if self.bars else f"{line}  ({self._summary()})", "" if ok else "yellow")

    def _print(self, line: str, style: str) -> None:
        self.console.print(line, style=style, markup=False, highlight=False)

    def _summary(self) -> str:
        """`12 done, 1 not ok, 3m10s left`."""
        elapsed, ready, total = time.monotonic() - self.began, self._ready(), sum(self.work.values())
        left = f", about {clock(elapsed * (total - ready) / ready)} left" if ready > 0.01 * total else ""
        failed = f", {self.failed} not ok" if self.failed else ""
        return f"{self.done} of {len(self.work)} done{failed}{left}"

    def _ready(self) -> float:
        return self.weight_done + sum(self.work.get(run, 0.0) * part for run, part in self.fractions.items())

"""What a person sees while runs are under way: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from harness.spec import RunSpec
from harness.units import clock, short


def title(spec: RunSpec) -> str:
    """A run in words: `text · pre_ln · seed 0`."""
    name = f"{spec.task_label} · {spec.architecture_label} · "
    return name + (f"trial lr {spec.train['lr']:g}" if spec.kind == "trial" else f"seed {spec.seed}")


class Live:
    """The state of a suite: per run step, loss, tokens/s and ETA; for the whole done, failed and ETA."""

    def __init__(self, total: int, workers: int, console: Console, *, work: float | None = None) -> None:
        self.total, self.workers, self.console = total, workers, console
        self.began = time.monotonic()
        self.fractions: dict[tuple[Any, ...], float] = {}
        self.started: dict[tuple[Any, ...], float] = {}
        self.spent: list[float] = []
        self.done = self.failed = 0
        self.bars: Progress | None = None
        self.rows: dict[tuple[Any, ...], TaskID] = {}
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[note]}"))
            self.bars = Progress(*columns, console=console, transient=True)
            self.suite = self.bars.add_task("all runs", total=total, note="")

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
        """Take in one event of a run."""
        key = (spec.kind, spec.task_label, spec.architecture_label, spec.seed, spec.train["lr"])
        if event["event"] == "start":
            self._start(key, spec, event)
        elif event["event"] == "step":
            self._step(key, event)
        elif event["event"] == "note":
            self.console.print(f"{title(spec)}: {event['message']}", style="yellow", markup=False, highlight=False)
        elif event["event"] == "end":
            self._end(key, spec, event)
        if self.bars:
            self.bars.update(self.suite, completed=self.done + sum(self.fractions.values()), note=self._summary())

    def _start(self, key: tuple[Any, ...], spec: RunSpec, event: dict[str, Any]) -> None:
        self.started[key], self.fractions[key] = time.monotonic(), 0.0
        if self.bars:
            note = f"resumed at step {event['resumed_at']}" if event["resumed_at"] else "starting"
            self.rows[key] = self.bars.add_task(title(spec), total=1.0, note=note)
        elif event["resumed_at"]:
            self.console.print(f"        {title(spec)}: goes on from step {event['resumed_at']}")

    def _step(self, key: tuple[Any, ...], event: dict[str, Any]) -> None:
        self.fractions[key] = event["progress"]
        if not self.bars or key not in self.rows:
            return
        speed = event["tokens"] / event["seconds"] if event["seconds"] else 0.0
        left = event["seconds"] * (1 / event["progress"] - 1) if event["progress"] else 0.0
        note = f"step {event['steps']}  loss {event['loss']:.3f}  {short(speed)} tok/s  {clock(left)} left"
        self.bars.update(self.rows[key], completed=event["progress"], note=note)

    def _end(self, key: tuple[Any, ...], spec: RunSpec, event: dict[str, Any]) -> None:
        self.fractions.pop(key, None)
        self.done += 1
        seconds = time.monotonic() - self.started.pop(key, time.monotonic())
        self.spent.append(seconds)
        ok = event["status"] == "ok"
        self.failed += not ok
        if self.bars and key in self.rows:
            self.bars.remove_task(self.rows.pop(key))
        reason = "" if ok else f": {(event.get('error') or {}).get('message', '')}"
        style = "" if ok else "yellow"
        line = f"[{self.done}/{self.total}] {title(spec)}  {event['status']} in {clock(seconds)}{reason}"
        self.console.print(
            line + ("" if self.bars else f"  ({self._summary()})"), style=style, markup=False, highlight=False
        )

    def _summary(self) -> str:
        """`12 done, 1 not ok, 3m10s left`."""
        elapsed = time.monotonic() - self.began
        ready = self.done + sum(self.fractions.values())
        left = f", about {clock(elapsed * (self.total - ready) / ready)} left" if ready > 0.02 * self.total else ""
        failed = f", {self.failed} not ok" if self.failed else ""
        return f"{self.done} of {self.total} done{failed}{left}"

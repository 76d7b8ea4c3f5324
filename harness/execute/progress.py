"""The display of runs under way: bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from harness.errors import printable
from harness.records.spec import RunSpec
from harness.units import clock, short

if TYPE_CHECKING:
    from harness.execute.worker import Job

Key: TypeAlias = "tuple[Any, ...]"


def key(spec: RunSpec) -> Key:
    """A key that is unique to a run within its suite."""
    number = spec.tuning.trial if spec.tuning else None
    return spec.kind, spec.cell, spec.seed, *spec.point.items(), number


class Live:
    """The state of a suite: per run step, loss, tokens/s and ETA; for the whole done, failed and ETA."""

    def __init__(
        self,
        work: Mapping[Key, float],
        console: Console,
        follow: Callable[[RunSpec, dict[str, Any]], None] = lambda spec, event: None,
    ) -> None:
        """`work` is the relative cost of each run, by `key`; `follow` is told every event, too."""
        self.work, self.console, self.follow = work, console, follow
        self.began = time.monotonic()
        self.fractions: dict[Key, float] = {}
        self.started: dict[Key, float] = {}
        self.rows: dict[Key, TaskID] = {}
        self.weight_done = 0.0
        self.done = self.failed = 0
        self.compiled = False
        """Whether it has been said that loops are compiled."""
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[note]}"))
        self.bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        """Drawn while this context is entered; nothing is drawn where there is no terminal."""
        self.suite = self.bars.add_task("all runs", total=sum(work.values()), note="")
        names = [name for name, _ in {part for run in work for part in run if type(part) is tuple}]
        self.tuned = {name for name in names if names.count(name) > 1}

    def event_of(self, job: "Job", event: dict[str, Any]) -> None:
        """Show one event of a job."""
        self.event(job.spec, event)

    def event(self, spec: RunSpec, event: dict[str, Any]) -> None:
        """Show one event of a run."""
        self.follow(spec, event)
        run, title = key(spec), spec.title(self.tuned)
        if event["event"] == "start":
            self._start(run, title, event["resumed_at"])
        elif event["event"] == "step":
            self._step(run, event)
        elif event["event"] == "compiling":
            self._compiling(run, title)
        elif event["event"] == "note":
            self.say(f"{title}: {event['message']}")
        elif event["event"] == "end":
            self._end(run, title, event)
        self.bars.update(self.suite, completed=self._ready(), note=self._summary())

    def say(self, line: str) -> None:
        """Print a line that the user should not miss."""
        self._print(line, "yellow")

    def _start(self, run: Key, title: str, step: int) -> None:
        self.started[run], self.fractions[run] = time.monotonic(), 0.0
        self._note(run, title, f"resumed at step {step}" if step else "starting")
        if step and self.bars.disable:
            self.console.print(f"        {title}: goes on from step {step}", markup=False)

    def _compiling(self, run: Key, title: str) -> None:
        self._note(run, title, "compiling (first use)")
        if self.bars.disable and not self.compiled:
            self.console.print(f"        {title}: compiling (first use; zoobench warm does so ahead)", markup=False)
        self.compiled = True

    def _note(self, run: Key, title: str, note: str) -> None:
        """Show what a run does, on a bar of its own."""
        if run not in self.rows:
            self.rows[run] = self.bars.add_task(escape(title), total=1.0, note="")
        self.bars.update(self.rows[run], note=note)

    def _step(self, run: Key, event: dict[str, Any]) -> None:
        self.fractions[run] = event["progress"]
        speed = event["tokens"] / event["seconds"] if event["seconds"] else 0.0
        left = event["seconds"] * (1 / event["progress"] - 1) if event["progress"] else 0.0
        note = f"step {event['steps']}  loss {event['loss']:.3f}  {short(speed)} tok/s  {clock(left)} left"
        self.bars.update(self.rows[run], completed=event["progress"], note=note)

    def _end(self, run: Key, title: str, event: dict[str, Any]) -> None:
        self.fractions.pop(run, None)
        self.done += 1
        self.weight_done += self.work.get(run, 0.0)
        seconds = time.monotonic() - self.started.pop(run, time.monotonic())
        ok = event["status"] == "ok"
        self.failed += not ok
        if run in self.rows:
            self.bars.remove_task(self.rows.pop(run))
        reason = "" if ok else f": {event['error'].message if event['error'] else ''}"
        line = f"[{self.done}/{len(self.work)}] {title}  {event['status']} in {clock(seconds)}{reason}"
        self._print(f"{line}  ({self._summary()})" if self.bars.disable else line, "" if ok else "yellow")

    def _print(self, line: str, style: str) -> None:
        self.console.print(printable(line), style=style, markup=False, highlight=False)

    def _summary(self) -> str:
        """`12 done, 1 not ok, 3m10s left`."""
        elapsed, ready, total = time.monotonic() - self.began, self._ready(), sum(self.work.values())
        left = f", about {clock(elapsed * (total - ready) / ready)} left" if ready > 0.01 * total else ""
        failed = f", {self.failed} not ok" if self.failed else ""
        return f"{self.done} of {len(self.work)} done{failed}{left}"

    def _ready(self) -> float:
        return self.weight_done + sum(self.work.get(run, 0.0) * part for run, part in self.fractions.items())

"""Following the runs of a suite: from the events of a run to its log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.loggers.base import LoggedRun, RunLog, final_facts, final_scores, point_values
from harness.records.spec import RunSpec
from harness.records.store import Store


class Followers:
    """The loggers of a suite, a context to be left when its runs are done."""

    def __init__(self, each: Sequence[Follower] = ()) -> None:
        self.each = each

    def event(self, spec: RunSpec, event: dict[str, Any]) -> None:
        """Tell every logger one event of a run; returns at once."""
        for follower in self.each:
            follower.submit(follower.event, spec, event)

    def __enter__(self) -> Followers:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until everything is written."""
        closing = [(follower, follower.submit(follower.close)) for follower in self.each]
        for follower, closed in closing:
            if wait([closed], timeout=2).not_done:
                follower.say(f"waiting for {follower.name} …")
            follower.thread.shutdown()


class Follower:
    """One logger on its own thread, so that a slow one holds up nothing. Its first error is its last: it is told, and
    nothing more is logged, as a server that is gone would take minutes of every later run."""

    def __init__(self, name: str, kind: type[RunLog], store: Store, console: Console) -> None:
        self.name, self.kind, self.store, self.console = name, kind, store, console
        self.folder: Path = store.own_path("logs", name)
        self.hint = kind.prepare(self.folder, store.suite)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.logs: dict[str, RunLog] = {}
        self.opened = self.failed = False

    def submit(self, act: Callable[..., None], *arguments: Any) -> Future[None]:
        """Do something on the logger's thread, unless it has failed before."""
        return self.thread.submit(self._try, act, *arguments)

    def _try(self, act: Callable[..., None], *arguments: Any) -> None:
        if self.failed:
            return
        try:
            act(*arguments)
        except Exception as error:
            self.failed = True
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self.say(f"{self.name} failed, and nothing more is logged to it: {why}", "yellow")

    def event(self, spec: RunSpec, event: dict[str, Any]) -> None:
        if event["event"] == "start":
            self._open(spec, resumed=event["resumed_at"] > 0)
            for point in event["curve"]:
                self._point(spec, point)
        elif event["event"] == "step":
            self._point(spec, event)
        elif event["event"] == "end":
            self._finish(spec)

    def close(self) -> None:
        for log in self.logs.values():
            log.close()

    def _open(self, spec: RunSpec, *, resumed: bool) -> RunLog:
        if not self.opened:
            self.opened = True
            self.say(f"{self.name}: {self.hint}")
        log = self.logs[spec.run_id] = self.kind(LoggedRun(self.store.suite, spec, self.folder, resumed))
        return log

    def _point(self, spec: RunSpec, point: Mapping[str, Any]) -> None:
        """Log a point unless it is there: a run resumes before its last ones, and makes equal ones again."""
        log, step = self.logs[spec.run_id], point["steps"]
        if step > log.last:
            log.log(step, point_values(point))
            log.last = step

    def _finish(self, spec: RunSpec) -> None:
        record = self.store.read(spec.run_id)
        assert record is not None
        log = self.logs.get(spec.run_id) or self._open(spec, resumed=True)  # it may have ended before it started
        step = max(log.last, record.budget.used.steps)
        log.finish(step, final_scores(record), final_facts(record), record.status)
        del self.logs[spec.run_id]

    def say(self, line: str, style: str = "") -> None:
        """Print a line between those of the runs."""
        self.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

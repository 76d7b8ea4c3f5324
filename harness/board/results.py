"""`harness.run`: a suite from Python, and what it left."""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.board.model import Board
from harness.board.report import with_records
from harness.board.verdicts import sentences
from harness.execute.runner import Ran, run_suite
from harness.records.mirror import folder_of
from harness.suite.load import load

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Results(Ran):
    """What a suite left, and its board; printed, its verdicts."""

    @cached_property
    def board(self) -> Board:
        """Its tables, ranked from the records."""
        return with_records(self.loaded, self.suite, self.folder.parent)[0]

    def table(self) -> pandas.DataFrame:
        """The rows of the board as a frame: one for each task, track and architecture, baselines too."""
        import pandas

        return pandas.DataFrame(self.board.to_rows())

    def __repr__(self) -> str:
        head = f"{self.suite}: {len(self.records)} runs in {self.folder}, {self.ran} made now"
        return "\n".join([head, *sentences(self.board)])

    def _repr_html_(self) -> str:
        columns = ["task", "track", "architecture", "status", "mean", "low", "high", "rank_low", "rank_high", "reason"]
        rows = self.table()[columns].astype({"rank_low": "Int64", "rank_high": "Int64"})
        shown: str = rows.to_html(index=False, na_rep="–", float_format="{:.3f}".format)
        return f"<p>{'<br>'.join(map(html.escape, str(self).splitlines()))}</p>{shown}"


def run(
    suite: str | Path | Mapping[str, Any],
    *,
    overrides: tuple[str, ...] = (),
    root: str | Path | None = None,
    workers: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    ignore_published: bool = False,
    console: Console | None = None,
    log: str | Sequence[str] = (),
    trust: bool = True,
    on: str = "here",
    address: str | None = None,
    cluster: Mapping[str, Any] | None = None,
    tasks: Collection[str] = (),
    tracks: Collection[str] = (),
) -> Results:
    """Run what a suite still lacks, and return its records.

    Args:
        suite: a name that ships, a path, or the keys of a suite as a dict. overrides: `key=value` pairs.
        root: where results go (`results`): a folder, or a URL such as `s3://bucket/results`. workers: runs at a time;
            by default one per core. threads: of each run; by default the cores divided by the workers. device: `auto`,
            `cpu`, `cuda` or `cuda:N`; by default what the suite says. No run's id names it.
        ignore_published: make runs again that were published with the suite.
        log: names of loggers, such as `("tensorboard",)`. trust: whether to import code that the suite
            names and that nobody has trusted so far. on: `here`, `ray` or `slurm`. address: of a Ray cluster.
        cluster: what Ray or submitit is told of each run, such as `{"num_gpus": 1}`.
        tasks, tracks: the tables to fill now, by the names of tasks and tracks; all without.

    Raises:
        UserError: the suite is wrong, its data, the device, the cluster or a logger is not here.
        KeyboardInterrupt: after checkpoints were written; call again to go on.
    """
    options: dict[str, Any] = {"workers": workers, "threads": threads, "device": device, "console": console}
    options |= {"on": on, "address": address, "cluster": cluster, "tasks": tasks, "tracks": tracks}
    made = run_suite(
        load(suite, overrides, trust=trust, to_run=True),
        root=None if root is None else folder_of(root),
        ignore_published=ignore_published,
        log=log,
        **options,
    )
    return Results(**vars(made))

"""trackio: a project a suite, in a SQLite file, or where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say."""

import contextlib
import contextvars
import os
from collections.abc import Mapping
from pathlib import Path

from harness.loggers.base import LoggedRun
from harness.records.record import Status


class Trackio:
    """One run, with its final size, speed and memory in its last row."""

    @staticmethod
    def prepare(folder: Path, suite: str) -> str:
        where = os.environ.setdefault("TRACKIO_DIR", str(folder.resolve()))  # trackio reads it when it is imported
        import trackio.run
        import trackio.utils

        for module in (trackio, trackio.run, trackio.utils):  # its lines would break the bars and `--json`
            vars(module)["print"] = lambda *_, **__: None
        return f"TRACKIO_DIR={where} trackio show --project {suite}"

    def __init__(self, run: LoggedRun) -> None:
        import trackio

        name = f"{run.name}-{run.id}"  # trackio finds runs by their name
        if not run.resumed:
            with contextlib.suppress(ValueError):  # the project is not here
                for old in [old for old in trackio.Api().runs(run.suite) if old.name == name]:
                    old.delete()
        # in a context of its own, as `init` finishes the run before it in the same one
        self.run = contextvars.Context().run(
            trackio.init,
            project=run.suite,
            name=name,
            group=run.group,
            config=dict(run.config),
            resume="allow" if run.resumed else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self.last: int = max(0, self.run._next_step - 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def finish(self, step: int, scores: Mapping[str, float], facts: Mapping[str, float], status: Status) -> None:
        self.run.log({**scores, **facts, "status": status}, step=step)
        self.close()

    def close(self) -> None:
        self.run.finish()

"""Loggers, off by default: curves of a suite's runs while they train, hyperparameters and scores when they end.

They work in the process that starts the runs, each on its own thread: nothing of theirs is in a run's process, on its
clock or in its random state, and what goes wrong in them ends no run.
"""

import importlib
from collections.abc import Iterable

from rich.console import Console

from harness.errors import UserError
from harness.loggers.follow import Follower, Followers
from harness.records.store import Store
from zoo.registry import nearest

__all__ = ["LOGGERS", "Followers", "open_loggers"]

LOGGERS = {
    "tensorboard": "harness.loggers.tensorboard:TensorBoard",
    "wandb": "harness.loggers.wandb:Wandb",
    "mlflow": "harness.loggers.mlflow:MLflow",
    "trackio": "harness.loggers.trackio:Trackio",
}
"""Where each logger is, by name; the extra that installs what it needs has the same name."""


def open_loggers(names: str | Iterable[str], store: Store, console: Console) -> Followers:
    """The loggers of these names (`"wandb,mlflow"` is two), to be entered and told every event of the suite's runs.

    Raises:
        UserError: a name is unknown, its package is missing, or the logger cannot be used as it is set up.
    """
    given = [names] if isinstance(names, str) else names
    each = dict.fromkeys(name.strip() for text in given for name in text.split(","))
    return Followers([_follower(name, store, console) for name in each])


def _follower(name: str, store: Store, console: Console) -> Follower:
    if name not in LOGGERS:
        raise UserError(f"unknown logger {name!r}{nearest(name, LOGGERS)}", key="--log")
    module, _, kind = LOGGERS[name].partition(":")
    try:
        return Follower(name, getattr(importlib.import_module(module), kind), store, console)
    except ImportError as error:
        raise UserError(f"{name} cannot be used ({error}): pip install 'zoobench[{name}]'", key="--log") from None

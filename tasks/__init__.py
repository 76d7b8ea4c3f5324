"""What is asked of an architecture: tasks with their data, metrics and baselines. Nothing here imports torch."""

from tasks.base import Baseline, DataError, Decoding, Difficulty, Metric, Task
from tasks.registry import build, get, names, register

__all__ = ["Baseline", "DataError", "Decoding", "Difficulty", "Metric", "Task", "build", "get", "names", "register"]

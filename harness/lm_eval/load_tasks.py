"""Tasks of lm-evaluation-harness by name: its own, ours (`questions`), and those of a folder of YAML files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.lm_eval import questions
from zoo.registry import nearest

Report = Callable[[str], None]


@dataclass
class LoadedTasks:
    """Tasks and groups, as `lm_eval.evaluate` takes them, by name."""

    tasks: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    requested_as: dict[str, str | None] = field(default_factory=dict)
    """By task, the group or tag that brought it; None where it was named itself."""


def import_lm_eval() -> Any:
    """The module `lm_eval`; a UserError where it is absent or too old."""
    install = "pip install -U 'zoobench[lm-eval]'"
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        why = f"questions are asked through lm-eval, which cannot be imported ({error})"
        raise UserError(f"{why}: {install}") from error
    if not hasattr(TaskManager, "load"):
        raise UserError(f"lm-eval {lm_eval.__version__} is too old: {install}")
    return lm_eval


def load_tasks(names: Sequence[str], include: Path | None, report: Report) -> LoadedTasks:
    """The tasks and groups of every name; a UserError names one that is unknown, cannot be had, or cannot be asked.

    With `hf:` before a name its data may come from the hub (`isolation.isolated`).
    """
    if not names or isinstance(names, str):
        raise UserError("name at least one task, group or tag; zoobench ls questions lists ours")
    names = list(dict.fromkeys(name.removeprefix("hf:") for name in names))
    manager, loaded = _manager(names, include, report), LoadedTasks()
    for name in names:
        report(f"{name}: reading the questions")
        found = _read(manager, name)
        for task_name, task in found["tasks"].items():
            _check(task_name, task)
            if loaded.tasks.setdefault(task_name, task) is task:
                loaded.requested_as[task_name] = None if task_name == name else name
        loaded.groups.update(found["groups"])
    return loaded


def set_fewshot(tasks: dict[str, Any], fewshot: int | None, seed: int) -> None:
    """Set the few-shot examples (a task that says 0 keeps to it); a UserError where a task has too few documents."""
    for name, task in tasks.items():
        own = task.get_config("num_fewshot")
        if own is None or (fewshot is not None and own != 0):
            task.set_config(key="num_fewshot", value=fewshot or 0)
        if (task.get_config("num_fewshot") or 0) >= len(task.eval_docs) and not task.has_training_docs():
            raise UserError(f"{name} has {len(task.eval_docs)} documents, too few for {fewshot} examples before each")
        task.set_fewshot_seed(seed=seed)


def _manager(names: Sequence[str], include: Path | None, report: Report) -> Any:
    """A TaskManager that knows every name. Reading lm_eval's own YAML files takes seconds: only where they are needed.

    A group or tag of the folder `include` may bring tasks of lm_eval's own.
    """
    from lm_eval.tasks import TaskManager

    if include is not None and not include.is_dir():
        raise UserError(f"{include} is no folder: it should hold the YAML files of lm-eval tasks")
    folders: list[str | Path] = [questions.HOME, *([include] if include else [])]
    manager = TaskManager(include_path=folders, include_defaults=False)
    if set(names) <= set(manager.all_tasks if include is None else manager.all_subtasks):
        return manager
    report("reading the list of lm-eval's tasks")
    manager = TaskManager(include_path=folders)
    known = manager.all_tasks
    for name in names:
        if name not in known:
            near = nearest(name, known) if nearest(name, known).startswith("; did") else ""
            lists = "zoobench ls questions lists those that need no hub"
            raise UserError(f"unknown lm-eval task {name!r}{near}; {lists}")
    return manager


def _read(manager: Any, name: str) -> dict[str, Any]:
    """What one name brings; an error names the task of ours that asks the same, if there is one."""
    try:
        return dict(manager.load([name]))
    except UserError:
        raise
    except Exception as error:  # lm_eval runs each task's own code, and that of the hub
        if name in questions.configs():
            raise UserError(f"{name}: {error}") from error
        local = f"local_{name}"
        instead = f"{local} asks the same of a file" if local in questions.configs() else "some need no hub"
        why = f"cannot be loaded ({type(error).__name__}: {str(error).split(chr(10))[0]})"
        raise UserError(
            f"lm-eval task {name!r} {why}; hf:{name} asks the hub; {instead}: zoobench ls questions"
        ) from error


def _check(name: str, task: Any) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise UserError(f"lm-eval task {name!r} runs the code that a model writes; zoobench does not")
    if getattr(task, "MULTIMODAL", False):
        raise UserError(f"lm-eval task {name!r} asks about images or sounds; the models here read text")

"""The one list of tasks: register, look up, build.

A task is a `Task` class; its options are the keyword parameters of `__init__`. The built-in ones live in `tasks`,
others come from installed packages (entry points in group `zoobench.tasks`) or from plug-in files, see
`zoo.registry.load_plugin`. Nothing here imports torch or loads data.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from tasks.base import Task
from tasks.extrapolation import Extrapolated
from zoo.registry import Registry, nearest, options_of, snake

T = TypeVar("T", bound=type[Task])
FAMILIES = ("language", "long_range", "images", "recall", "state", "seq2seq")
"""The packages of `tasks` whose modules register the built-in tasks."""
_registry = Registry("task", "zoobench.tasks", modules=tuple(f"tasks.{family}" for family in FAMILIES))
names, get, registered_by = _registry.names, _registry.get, _registry.registered_by


def register(
    name: str | None = None,
    *,
    about: str = "",
    paper: str = "",
    source: str = "",
    deviations: tuple[str, ...] = (),
    formerly: tuple[str, ...] = (),
) -> Callable[[T], T]:
    """Register a `Task` class, and set its `name`.

    Args:
        name: defaults to the class's own `name`, or else the class's in snake case.
        about: defaults to the first paragraph of the class's docstring.
        paper: the paper that defines it. source: the official implementation. deviations: see `Entry`.
        formerly: names it had before, under which suites and records still find it.

    Raises:
        ValueError: the name is taken by another module, or is not lower-case letters, digits and underscores.
    """

    def add(target: T) -> T:
        own = name or target.__dict__.get("name", snake(target.__name__))
        told: dict[str, Any] = {"about": about, "paper": paper, "source": source, "deviations": deviations}
        _registry.add(own, target, target, options_of(target.__init__, skip=1), **told)
        target.name = own
        _registry.aliases.update(dict.fromkeys(formerly, own))
        return target

    return add


def build(name: str, **options: Any) -> Task:
    """A task under `options`. The data is not loaded before the first example is asked for.

    Every task takes `extrapolate` beside its own options, such as [2, 4]: see `tasks.extrapolation`.

    Example:
        >>> build("text", corpus="wikipedia_xml", length=128).shape.vocab
        256

    Raises:
        KeyError: unknown task. TypeError: unknown option. ValueError: an option's value cannot be.
        DataError: a file named in an option is absent or too small.
    """
    entry = get(name)
    multiples = options.pop("extrapolate", None)
    known = [option.name for option in entry.options]
    for unknown in sorted(set(options) - set(known)):
        raise TypeError(f"{name} has no option {unknown!r}{nearest(unknown, known)}")
    task = entry.make(**options)
    task.options = options
    return task if multiples is None else Extrapolated(task, multiples)

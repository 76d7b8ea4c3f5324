"""Options checked against the annotations of a signature, with messages for the user.

Architectures and their parts are checked here before they are made, so that none of them has to check types or choices
itself; they check ranges, and what goes together.
"""

import math
import types
from collections.abc import Collection, Iterable
from inspect import Parameter, signature
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from zoo.registry import Option, Table, nearest, options_of
from zoo.types import Part


def check(owner: str, options: Iterable[Option], given: dict[str, Any], *, also: Iterable[Option] = ()) -> None:
    """Check that every given option is known and fits its annotation. `also`: options known beside its own.

    Raises:
        TypeError: unknown option. ValueError: the wrong kind of value.
    """
    known = {option.name: option for option in (*also, *options)}
    for name in sorted(set(given) - set(known), key=str):
        raise TypeError(f"{owner} has no option {name!r}{nearest(name, known)}")
    for name, value in given.items():
        problem = mismatch(value, known[name].annotation)
        if problem and value is not known[name].default:
            raise ValueError(f"{owner}: {name} {problem}")


def make(table: Table, part: Part, *args: Any, **given: Any) -> Any:
    """Build the component that `part` names from `args`, `given` and the part's own options.

    Raises:
        TypeError: unknown option. ValueError: unknown component, or a value that cannot be.
    """
    kind = table.resolve(part.kind)
    try:
        parameters = signature(kind.__init__).parameters.values()
        options = [option for option in options_of(kind.__init__, skip=1 + len(args)) if option.name not in given]
    except (NameError, TypeError, ValueError):
        return kind(*args, **given, **part.options)  # a signature that cannot be read
    if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        check(part.name, options, part.options)
    return kind(*args, **given, **part.options)


def mismatch(value: Any, annotation: Any) -> str | None:
    """The end of a message: what `annotation` allows and what was given; None where the value fits."""
    if _fits(value, annotation):
        return None
    choices = [str(choice) for kind in (annotation, *get_args(annotation)) for choice in _choices(kind)]
    near = nearest(value, choices) if isinstance(value, str) else ""
    near = near if "did you mean" in near else ""
    if get_origin(annotation) is Literal and isinstance(value, str):
        return f"{value!r} is not one of {', '.join(choices)}{near}"
    said = f"must be {_words(annotation)}, got {value!r}{near}"
    whole = isinstance(value, float) and value.is_integer() and _fits(int(value), annotation)
    return f"{said}; write {int(value)}" if whole else said


def _choices(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _fits(value: Any, annotation: Any) -> bool:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _fits(value, inner[0])
    if origin in (Union, types.UnionType):
        return any(_fits(value, kind) for kind in inner)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if origin in (list, tuple):
        kinds = [kind for kind in inner if kind is not Ellipsis]
        return isinstance(value, (list, tuple)) and all(any(_fits(item, kind) for kind in kinds) for item in value)
    if origin is dict:
        pairs = value.items() if isinstance(value, dict) else ()
        return isinstance(value, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in pairs)
    if annotation is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if annotation is float:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if isinstance(annotation, type) and annotation not in (Any, Parameter.empty):
        return isinstance(value, annotation)
    return True  # an annotation of another form is for its owner to check


_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: "a name",
    dict: "a mapping",
    list: "a list",
    tuple: "a list",
    type(None): "none",
}


def _words(annotation: Any) -> str:
    """`int | None` → "a whole number or none"."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(inner[0])
    if origin in (Union, types.UnionType, Literal):
        return _either(_options(annotation))
    if origin in (list, tuple) and inner:
        kinds = dict.fromkeys(_words(kind) for kind in inner if kind is not Ellipsis)
        return f"a list (each entry {_either(kinds)})"
    return _NAMES.get(origin or annotation, getattr(annotation, "__name__", str(annotation)))


def _options(annotation: Any) -> list[str]:
    """Each kind and choice of a Union or a Literal, except Part, which no suite can hold."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return [str(choice) for choice in inner]
    if origin in (Union, types.UnionType):
        return [word for kind in inner if kind is not Part for word in _options(kind)]
    return [_words(annotation)]


def _either(words: Collection[str]) -> str:
    *most, last = dict.fromkeys(words)
    return f"{', '.join(most)} or {last}" if most else last

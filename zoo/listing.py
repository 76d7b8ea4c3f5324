"""Architectures by what they are and can do."""

import builtins
from typing import Any

from zoo import architectures, cache
from zoo.registry import nearest
from zoo.types import Role


def list(
    *, family: str | None = None, role: Role | None = None, causal: str | None = None, since: int | None = None
) -> builtins.list[str]:
    """The names of the architectures that fit, sorted; all of them by default.

    What is asked of a built-in architecture for the first time is found out by building small models without memory,
    which takes seconds, and is kept for later.

    Args:
        family: the heading it is listed under, such as `transformers`. role: one that it can play, such as `lm`.
        causal: `strict`, `leaky` or `no`, as in `Traits`. since: the year of its paper at the earliest.

    Raises:
        ValueError: no architecture has that family, role or trait; the message names the nearest.
    """
    asked = {"family": family, "roles": role, "causal": causal}
    wanted = {key: value for key, value in asked.items() if value is not None}
    names = architectures.names()
    if since is not None:
        names = [name for name in names if (architectures.get(name).year or 0) >= since]
    if not wanted:
        return names
    with cache.kept() as known:
        outlines = {name: _outline(name, known) for name in names}
    for key, value in wanted.items():
        values = {one for outline in outlines.values() for one in outline[key]}
        if value not in values:
            raise ValueError(f"no architecture has {key.removesuffix('s')} {value!r}{nearest(value, values)}")
    return [name for name in names if all(value in outlines[name][key] for key, value in wanted.items())]


def _outline(name: str, known: dict[str, Any]) -> dict[str, builtins.list[str]]:
    """Family, roles and causality of one architecture, each as a list; `known` has those of built-in ones."""
    key = f"outline {name}"
    if key in known:
        return dict(known[key])
    from zoo.size import sketch_roles

    models = sketch_roles(name)
    found: dict[str, builtins.list[str]] = {
        "family": [architectures.get(name).family],
        "roles": [*map(str, models)],
        "causal": [str(model.traits.causal) for model in models.values()][:1],
    }
    if name not in architectures.plugins():
        known[key] = found
    return found

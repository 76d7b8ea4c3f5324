"""zoo: sequence architectures behind one interface.

`zoo.build("pre_ln", "lm", shape=zoo.Shape(...))` makes a model; `zoo.register` adds an architecture. torch is loaded
when a model is built or one of the contract's modules (`Mixer`, `Model`, ...) is asked for, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.registry import build, names, recipe, register
from zoo.terms import Batch, Hint, Part, Recipe, Shape, Site, State, Traits, Unsupported

if TYPE_CHECKING:
    from zoo.contract import Backbone, Mixer, Model

__all__ = [
    "Backbone",
    "Batch",
    "Hint",
    "Mixer",
    "Model",
    "Part",
    "Recipe",
    "Shape",
    "Site",
    "State",
    "Traits",
    "Unsupported",
    "build",
    "names",
    "recipe",
    "register",
]


def __getattr__(name: str) -> Any:
    if name in ("Backbone", "Mixer", "Model"):
        from zoo import contract

        return getattr(contract, name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")

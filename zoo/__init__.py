"""zoo: sequence architectures behind one interface.

`zoo.build("pre_ln", "lm", shape=zoo.Shape(...))` makes a model; `zoo.register` adds an architecture; `zoo.load` opens
published weights and what `zoo.save` wrote. torch is loaded when a model is built or opened, or one of the contract's
modules (`Mixer`, `Model`, ...) is asked for, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.registry import build, names, recipe, register
from zoo.terms import Batch, Hint, Part, Recipe, Shape, Site, State, Traits, Unsupported

if TYPE_CHECKING:
    from zoo.contract import Backbone, Mixer, Model
    from zoo.pretrained import load, save

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
    "load",
    "names",
    "recipe",
    "register",
    "save",
]


def __getattr__(name: str) -> Any:
    if name in ("Backbone", "Mixer", "Model"):
        from zoo import contract

        return getattr(contract, name)
    if name in ("load", "save"):
        from zoo import pretrained

        return getattr(pretrained, name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")

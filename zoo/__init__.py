"""zoo: sequence architectures behind one interface.

`zoo.list(role="lm")` names architectures; `zoo.build("pre_ln", "lm", shape=zoo.Shape(...))` makes a model;
`zoo.register` adds an architecture; `zoo.load` opens published weights and what `zoo.save` wrote; `zoo.draw` makes a
figure. torch is loaded when an architecture is opened, or one of the contract's modules (`Mixer`, `Model`, ...) is
asked for, not before.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from zoo.architectures import names, recipe, register
from zoo.build import build
from zoo.types import Batch, LayerContext, ParamOverride, Part, Recipe, Shape, State, Traits, Unsupported

if TYPE_CHECKING:
    from zoo.contract import Backbone, Mixer, Model
    from zoo.figures import draw
    from zoo.listing import list as list  # not in __all__: `from zoo import *` leaves Python's own alone
    from zoo.published import load
    from zoo.published.ours import save

__all__ = [
    "Backbone", "Batch", "LayerContext", "Mixer", "Model", "ParamOverride", "Part", "Recipe", "Shape", "State",
    "Traits", "Unsupported", "build", "draw", "load", "names", "recipe", "register", "save",
]  # fmt: skip
_LAZY = {"draw": "zoo.figures", "list": "zoo.listing", "load": "zoo.published", "save": "zoo.published.ours"}
_LAZY |= dict.fromkeys(("Backbone", "Mixer", "Model"), "zoo.contract")
Site, Hint = LayerContext, ParamOverride
"""Their names from before 0.1."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")


def __dir__() -> Iterable[str]:
    return sorted({*globals(), *__all__, *_LAZY})

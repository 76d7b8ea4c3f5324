"""From a name and a shape to a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.architectures import recipe
from zoo.types import Role, Shape

if TYPE_CHECKING:
    from zoo.contract import Model


def build(name: str, role: Role = "lm", *, shape: Shape, **options: Any) -> Model:
    """Build a model, initialised from torch's global generator.

    Example:
        >>> model = build("pre_ln", "lm", shape=Shape(length=128, vocab=256, outputs=256, width=64), heads=2)

    Raises:
        KeyError: unknown architecture. TypeError: unknown option. ValueError: an option's value cannot be.
        Unsupported: this architecture cannot play this role.
    """
    from zoo.blocks.heads import assemble

    model = assemble(recipe(name, **options), role, shape)
    model.built = {"architecture": name, "options": options}
    return model

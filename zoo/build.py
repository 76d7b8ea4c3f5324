"""From the name of an architecture and a shape to a model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from zoo.architectures import recipe as recipe_of
from zoo.types import ROLES, Recipe, Role, Shape

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
    model = assemble(recipe_of(name, **options), role, shape)
    model.built = {"architecture": name, "options": options}
    return model


def assemble(recipe: Recipe, role: Role, shape: Shape) -> Model:
    """The model of a recipe for one role and shape.

    Raises:
        ValueError: the role is unknown, or a size or option cannot be.
        Unsupported: the architecture cannot play the role.
    """
    from zoo.blocks.heads import MODELS, EncoderDecoder  # loads torch

    if role not in MODELS:
        raise ValueError(f"unknown role {role!r}; known: {', '.join(ROLES)}")
    depth = shape.depth or recipe.depth
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    if shape.width % recipe.width_multiple:
        near = _near(shape.width, recipe.width_multiple)
        raise ValueError(f"width {shape.width} must be a multiple of {recipe.width_multiple}, such as {near}")
    kind = EncoderDecoder if role == "seq2seq" and recipe.cross is not None else MODELS[role]
    try:
        return kind(recipe, role, dataclasses.replace(shape, depth=depth))
    except (RuntimeError, TypeError, OverflowError) as error:
        if "overflow" not in str(error).lower():
            raise
        raise ValueError(f"width {shape.width} and these options need a larger tensor than there can be") from None


def _near(width: int, multiple: int) -> str:
    """The multiples on either side of a width."""
    below = width // multiple * multiple
    return f"{below} or {below + multiple}" if below else str(multiple)

"""From names of architectures to a figure: small models are built, run once, and drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

import zoo
from zoo import architectures
from zoo.contract import ROLES, Batch, Model, Role, Shape, Unsupported
from zoo.figures.collapse import collapse
from zoo.figures.compare import differing
from zoo.figures.graph import DEPTHS, Depth, Graph, fold
from zoo.figures.svg import draw as to_svg
from zoo.figures.trace import trace
from zoo.registry import nearest
from zoo.types import BadInput

ROWS, STEPS, VOCAB, TARGET = 2, 6, 11, 5
"""Sizes of the batch that is recorded; few steps, as some recurrences are loops over them."""
LENGTHS = (STEPS, 16, 64, 256)
"""Lengths that models are built for: the first that the architecture can have."""


def draw(
    names: str | Sequence[str],
    *,
    depth: Depth = "blocks",
    role: Role | None = None,
    options: Mapping[str, Any] | None = None,
) -> str:
    """An SVG figure of one or several architectures side by side, from the graph that runs; what differs is marked.

    Example:
        >>> svg = draw(["post_ln", "pre_ln"])

    Args:
        depth: `blocks`, `layers`, or `operations` with their shapes. See `zoo.figures.graph`.
        role: of the models; by default `lm`, or the first that an architecture plays.
        options: of every architecture.

    Raises:
        KeyError: unknown architecture. BadInput: unknown depth, or no layout engine. Unsupported: the architecture
            cannot play the role. TypeError, ValueError: an option is unknown or cannot be.
    """
    graphs = [
        graph_of(name, depth=depth, role=role, options=options)
        for name in ([names] if isinstance(names, str) else names)
    ]
    return to_svg(graphs, marks(graphs), depth)


def graph_of(
    name: str, *, depth: Depth = "blocks", role: Role | None = None, options: Mapping[str, Any] | None = None
) -> Graph:
    """The graph of one architecture, with its name as title. Arguments and errors are those of `draw`.

    The model has as many layers as the architecture has by default. Where they are equal, one is drawn and counted;
    where they are not, a model of fewer is drawn beyond the depth of blocks.
    """
    if depth not in DEPTHS:
        raise BadInput(f"unknown depth {depth!r}{nearest(depth, DEPTHS)}")
    options = dict(options or {})
    recipe = architectures.recipe(name, **options)
    play, cycle = role or first_role(name, options), len(recipe.mixers)
    graph, notes = record(name, play, recipe.depth, depth, options), []
    if recipe.depth > cycle:
        folded = fold(graph, recipe.depth // cycle) if recipe.depth % cycle == 0 else None
        if folded is None and depth != "blocks" and 2 * cycle < recipe.depth:
            folded = record(name, play, 2 * cycle, depth, options)
            notes.append(f"a model of {2 * cycle} blocks; by default it has {recipe.depth}")
        graph = folded or graph
    if play != "lm":
        notes.append(f"as {play}")
    return replace(graph, title=name, notes=(*notes, *graph.notes))


def record(name: str, role: Role, layers: int, depth: Depth, options: dict[str, Any]) -> Graph:
    """The graph of a small model of so many layers, from one pass over random tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(name, role, layers, options)
        traced = trace(model, batch_of(model))
        graph = collapse(traced, model, depth)
    fixed = traced.meta["fixed"]
    if fixed and depth == "operations":
        graph = replace(graph, notes=(f"routed as these tokens were, in {len(fixed)} modules",))
    return graph


def build(name: str, role: Role, layers: int, options: dict[str, Any]) -> Model:
    """A narrow model, as short as it can be."""
    multiple = architectures.recipe(name, **options).width_multiple
    width = multiple * max(2, math.ceil(16 / multiple))
    for length in LENGTHS:
        shape = Shape(length=length, vocab=VOCAB, outputs=VOCAB, target_length=TARGET, width=width, depth=layers)
        try:
            return zoo.build(name, role, shape=shape, **options).eval()
        except Unsupported:
            raise
        except ValueError:
            if length == LENGTHS[-1]:
                raise
    raise AssertionError


def batch_of(model: Model) -> Batch:
    """Random tokens for a model, as its role asks for them."""

    def tokens(steps: int) -> torch.Tensor:
        return torch.randint(0, VOCAB, (ROWS, steps))

    batch = Batch(inputs=tokens(min(STEPS, model.shape.length)))
    if model.role == "seq2seq":
        batch.decoder_inputs = tokens(TARGET)
    if model.role == "retrieve":
        batch.inputs2 = tokens(STEPS)
    return batch


def first_role(name: str, options: dict[str, Any]) -> Role:
    """The first role that an architecture can play: `lm`, if it can.

    Raises:
        Unsupported: it can play none.
    """
    for role in ROLES:
        with suppress(Unsupported):
            build(name, role, 1, options)
            return role
    raise Unsupported(f"{name} plays no role with these options")


def marks(graphs: Sequence[Graph]) -> list[set[int]]:
    """The nodes of each graph that differ from the first, and of two graphs also those of the first."""
    pairs = [differing(graphs[0], graph) for graph in graphs[1:]]
    return [pairs[0][0] if len(pairs) == 1 else set(), *(second for _, second in pairs)]

"""The figure of an architecture on its page, drawn from the graph that runs."""

from __future__ import annotations

from typing import Any, NamedTuple

from markupsafe import Markup

from harness.errors import one_line
from zoo import architectures

LARGEST = 60_000
"""Bytes of a figure on a page; a larger one gives way to that of the next lesser depth."""


class Figure(NamedTuple):
    """A figure and its depth; or, without one, why there is none."""

    svg: Markup
    depth: str
    problem: str = ""


def of(name: str, known: dict[str, Any]) -> Figure:
    """The figure of an architecture at the depth of layers, or of blocks where that would be large.

    `known` has those of built-in ones that were drawn before. Whatever a model raises becomes the reason why there is
    no figure: a page is made without it.
    """
    found = known.get(name) or _draw(name)
    if name not in architectures.plugins() and not found["problem"]:
        known[name] = found
    return Figure(Markup(found["svg"]), found["depth"], found["problem"])


def _draw(name: str) -> dict[str, str]:
    from zoo.figures import draw

    try:
        svg, depth = draw(name, depth="layers"), "layers"
        if len(svg.encode()) > LARGEST:
            svg, depth = draw(name, depth="blocks"), "blocks"
    except Exception as error:
        return {"svg": "", "depth": "", "problem": one_line(f"{type(error).__name__}: {error}")}
    return {"svg": svg, "depth": depth, "problem": ""}

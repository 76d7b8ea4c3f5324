"""The graph of a figure: boxes in the order in which they ran, and the arrows between them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

Depth: TypeAlias = Literal["blocks", "layers", "operations"]
DEPTHS: tuple[Depth, ...] = get_args(Depth)
Kind: TypeAlias = Literal["end", "embedding", "norm", "mixer", "channel", "sum", "other", "constant"]


@dataclass(frozen=True, slots=True)
class Node:
    """A box of a figure."""

    label: str
    """The module's class, or the operation."""
    kind: Kind
    path: str
    """The module whose call it is, or that it stands in."""
    shape: tuple[int, ...]
    """Of its result."""
    name: str = ""
    """The module's own name in the module around it, where that says more than its class and its place."""
    weights: tuple[str, ...] = ()
    """The parameters and buffers that it reads."""
    repeated: bool = False
    """Whether it stands in the part that is repeated."""


@dataclass(frozen=True)
class Graph:
    """Nodes in the order in which they ran, and arrows between their places in it."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    repeats: int = 1
    """How often the nodes that are repeated follow each other in the architecture."""

    @cached_property
    def _ends(self) -> tuple[list[list[int]], list[list[int]]]:
        sources: list[list[int]] = [[] for _ in self.nodes]
        targets: list[list[int]] = [[] for _ in self.nodes]
        for a, b in self.edges:
            sources[b].append(a)
            targets[a].append(b)
        return sources, targets

    def sources(self, i: int) -> list[int]:
        """The nodes that node i reads."""
        return self._ends[0][i]

    def targets(self, i: int) -> list[int]:
        """The nodes that read node i."""
        return self._ends[1][i]

    def without(self, unwanted: Callable[[int], bool]) -> Graph:
        """The graph less some nodes: arrows go on through them, and what follows reads their weights."""
        before: dict[int, set[int]] = {i: set() for i in range(len(self.nodes))}
        weights = [dict.fromkeys(node.weights) for node in self.nodes]
        for a, b in sorted(self.edges, key=operator.itemgetter(1)):
            before[b] |= before[a] if unwanted(a) else {a}
            weights[b] |= weights[a] if unwanted(a) else {}
        kept = [i for i in range(len(self.nodes)) if not unwanted(i)]
        place = {i: k for k, i in enumerate(kept)}
        edges = tuple(sorted((place[a], place[b]) for b in kept for a in before[b]))
        return replace(self, nodes=tuple(replace(self.nodes[i], weights=tuple(weights[i])) for i in kept), edges=edges)


def fold(graph: Graph, times: int) -> Graph | None:
    """The graph with the first of so many equal parts in a row alone, its nodes marked; None if there are none.

    The parts begin with the first layer. Equal are those whose nodes have the same labels and the same arrows among
    them and from the part before; from the last of them alone may arrows leave for what follows.
    """
    start = next((i for i, node in enumerate(graph.nodes) if ".sublayers.0." in f"{node.path}."), len(graph.nodes))
    found = _signatures(graph)
    for size in range((len(graph.nodes) - start) // times, 0, -1):
        end = start + size * times
        if found[start + size : end] == found[start : end - size]:
            break
    else:
        return None
    last = end - size
    if any(start <= a < last and b >= end for a, b in graph.edges):
        return None
    shift = [
        i if i < start else start + (i - start) % size if i < end else i - last + start for i in range(len(graph.nodes))
    ]
    edges = {(shift[a], shift[b]) for a, b in graph.edges if b < start + size or b >= end}
    kept = (*graph.nodes[:start], *(replace(node, repeated=True) for node in graph.nodes[start : start + size]))
    return replace(graph, nodes=(*kept, *graph.nodes[end:]), edges=tuple(sorted(edges)), repeats=times)


def _signatures(graph: Graph) -> list[tuple[Any, ...]]:
    """What each node is, and how far before it those stand that it reads."""
    before = [sorted(i - a for a in graph.sources(i)) for i in range(len(graph.nodes))]
    return [(node.label, node.name, node.kind, *far) for node, far in zip(graph.nodes, before, strict=True)]


def reaches(graph: Graph, start: Iterable[int], *, backwards: bool = False) -> set[int]:
    """Every node that arrows lead to from some nodes, or back from them; these included."""
    found, open_ = set(start), list(start)
    while open_:
        i = open_.pop()
        new = {*(graph.sources(i) if backwards else graph.targets(i))} - found
        found |= new
        open_ += new
    return found

"""What differs between two graphs: the smallest set of labels without whose nodes the graphs are the same.

Post-LN and Pre-LN agree once their norms are taken out, so the norms are what differs. Nodes with such a label that
stand at the same place in both (they read and are read by the same nodes, in or out of what is repeated) do not differ.
Graphs that no two labels explain are aligned as sequences, as `diff` does, and what has no counterpart differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from difflib import SequenceMatcher
from itertools import combinations
from typing import Any

from zoo.figures.graph import Graph

MOST = 2
"""Labels that may explain a difference beside those of which one graph has more nodes."""


def differing(first: Graph, second: Graph) -> tuple[set[int], set[int]]:
    """The places of the nodes of each graph that have no counterpart in the other."""
    counts = [Counter(map(str, _names(graph))) for graph in (first, second)]
    uneven = {name for name in counts[0] | counts[1] if counts[0][name] != counts[1][name]}
    even = sorted((counts[0] | counts[1]).keys() - uneven)
    for more in range(MOST + 1):
        for extra in combinations(even, more):
            found = _explained(first, second, uneven.union(extra))
            if found is not None:
                return found
    return _aligned(first, second)


def _names(graph: Graph) -> list[tuple[str, str]]:
    return [(node.label, node.name) for node in graph.nodes]


def _explained(first: Graph, second: Graph, labels: set[str]) -> tuple[set[int], set[int]] | None:
    """What differs, if the graphs are the same without these labels; None if they are not."""
    names = [_names(graph) for graph in (first, second)]
    inside = [[str(name) in labels for name in names[i]] for i in range(2)]
    rest = [graph.without(inside[i].__getitem__) for i, graph in enumerate((first, second))]
    if _names(rest[0]) != _names(rest[1]) or rest[0].edges != rest[1].edges:
        return None
    if [node.repeated for node in rest[0].nodes] != [node.repeated for node in rest[1].nodes]:
        return None
    places = [_places(graph, inside[i].__getitem__) for i, graph in enumerate((first, second))]
    common = Counter(places[0].values()) & Counter(places[1].values())
    return _beyond(places[0], common), _beyond(places[1], common)


def _places(graph: Graph, inside: Callable[[int], bool]) -> dict[int, Any]:
    """For each node inside, its name and the nodes outside before and after it, by their order among those."""
    order = {i: k for k, i in enumerate(i for i in range(len(graph.nodes)) if not inside(i))}
    found = dict[int, Any]()
    for i, node in enumerate(graph.nodes):
        if inside(i):
            ends = (_ends(graph.sources, i, inside), _ends(graph.targets, i, inside))
            found[i] = (node.label, node.name, node.repeated, *(tuple(sorted(order[k] for k in end)) for end in ends))
    return found


def _ends(step: Callable[[int], list[int]], start: int, inside: Callable[[int], bool]) -> set[int]:
    """The nearest nodes outside, going by `step`."""
    found, open_ = set[int](), [start]
    while open_:
        for k in step(open_.pop()):
            (open_.append if inside(k) else found.add)(k)
    return found


def _beyond(places: dict[int, Any], common: Counter[Any]) -> set[int]:
    """The nodes whose places are not among the common ones, as often as those occur."""
    left, found = Counter(common), set()
    for i, place in places.items():
        if left[place]:
            left[place] -= 1
        else:
            found.add(i)
    return found


def _aligned(first: Graph, second: Graph) -> tuple[set[int], set[int]]:
    """What has no counterpart in order; and counterparts that read other nodes, once those are taken out."""
    blocks = SequenceMatcher(None, _names(first), _names(second), autojunk=False).get_matching_blocks()
    pairs = [(a + k, b + k) for a, b, size in blocks for k in range(size)]
    kept = [{pair[side] for pair in pairs} for side in range(2)]
    alone = [{*range(len(graph.nodes))} - kept[side] for side, graph in enumerate((first, second))]
    rest = [graph.without(alone[side].__contains__) for side, graph in enumerate((first, second))]
    for k, (a, b) in enumerate(pairs):
        if rest[0].sources(k) != rest[1].sources(k):
            alone[0].add(a)
            alone[1].add(b)
    return alone[0], alone[1]

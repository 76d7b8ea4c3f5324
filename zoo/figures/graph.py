"""The graph of a figure: what a recorded pass looks like from near (every operation) or far (blocks).

A unit is a call of a module or of a function of `zoo.ops` that is drawn as one node. Which calls are units is all that
tells the depths apart:

    blocks      the embedding, each norm and mixer between the blocks, the head
    layers      modules without modules inside, functions of `zoo.ops`, and mixtures of experts, whose inside is as many
                calls as there are experts, and depends on the tokens
    operations  none: every call of torch is a node, with its shape

Arrows are the recorded graph's, so they are the data's own way. From further off than operations, what only reshapes,
selects or fills is left out, and arrows go through it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import torch.fx
from torch import nn

from zoo.blocks.bidirectional import Bidirectional
from zoo.blocks.heads import Embedding
from zoo.blocks.residual import Residual
from zoo.contract import Backbone, Mixer, Model
from zoo.figures.trace import Scope, depending, reads
from zoo.layers import CHANNELS
from zoo.layers.mixture_of_experts import MixtureOfExperts
from zoo.layers.side_by_side import Sum

Depth: TypeAlias = Literal["blocks", "layers", "operations"]
DEPTHS: tuple[Depth, ...] = get_args(Depth)
Kind: TypeAlias = Literal["end", "embedding", "norm", "mixer", "channel", "sum", "other", "constant"]

SYMBOLS = {
    "add": "+", "iadd": "+", "radd": "+", "sum": "sum", "sub": "−", "rsub": "−", "isub": "−", "mul": "×", "imul": "×",
    "rmul": "×", "div": "÷", "truediv": "÷", "rtruediv": "÷", "rdiv": "÷", "rpow": "power", "pow": "power", "neg": "−",
    "matmul": "matmul", "rmatmul": "matmul", "getitem": "select", "setitem": "write", "invert": "not",
    "scaled_dot_product_attention": "dot-product attention",
}  # fmt: skip
"""What functions are called where Python's names are not the usual ones."""
QUIET = {
    *("view", "view_as", "reshape", "unflatten", "flatten", "transpose", "permute", "movedim", "swapaxes", "T", "mT", "real"),
    *("expand", "expand_as", "squeeze", "unsqueeze", "contiguous", "to", "float", "double", "type_as", "clone"),
    *("getitem", "select", "chunk", "split", "unbind", "narrow", "detach", "pad", "view_as_real", "view_as_complex", "broadcast_to"),
    *("zeros_like", "zeros", "new_zeros", "ones_like", "empty", "empty_like", "full", "bool", "long", "diagonal"),
}  # fmt: skip
"""Operations that compute nothing: left out but at the depth of operations."""


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


def collapse(traced: torch.fx.GraphModule, model: Model, depth: Depth) -> Graph:
    """The graph of a recorded pass of `model`, as it looks at a depth."""
    modules = dict(model.named_modules())
    groups: dict[Any, list[torch.fx.Node]] = {}
    place, order = dict[torch.fx.Node, int](), dict[Any, int]()
    for node in traced.graph.nodes:
        if node.op != "get_attr":
            key = _unit(node, modules, depth)
            if node.target is operator.getitem and node.args[0].meta["shape"] == ():
                key = node.args[0]  # one of several results of a call
                key = key if key in groups else _unit(key, modules, depth)
            order.setdefault(key, len(order))
            groups.setdefault(key, []).append(node)
            place[node] = order[key]
    arrows = {(place[a], place[b]) for b in place for a in reads(b) if a in place and place[a] != place[b]}
    nodes = [_node(key, members, modules, model) for key, members in groups.items()]
    variable = depending(traced.graph)
    moves = [not variable.isdisjoint(members) for members in groups.values()]
    constant = [not moves[i] and (depth == "operations" or not node.weights) for i, node in enumerate(nodes)]
    nodes = [replace(node, kind="constant") if constant[i] else node for i, node in enumerate(nodes)]
    graph = Graph(tuple(nodes), tuple(sorted(arrows)))
    used = reaches(graph, [len(nodes) - 1], backwards=True)
    first = [members[0] for members in groups.values()]
    unit = [isinstance(key, Scope) or members[0].op in ("placeholder", "output") for key, members in groups.items()]

    def unwanted(i: int) -> bool:
        if i not in used:
            return nodes[i].kind != "end"  # its shape alone was read
        return depth != "operations" and not unit[i] and not (moves[i] and _computes(first[i]))

    return graph.without(unwanted)


def _unit(node: torch.fx.Node, modules: dict[str, nn.Module], depth: Depth) -> Any:
    """The call that a node is drawn as a part of: the outermost that is a unit, or the node itself."""
    if depth == "operations" or node.op in ("placeholder", "output"):
        return node
    for scope in node.meta["scopes"]:
        module = modules[scope.name] if scope.kind else None
        if module is None:
            if depth == "layers":
                return scope
        elif depth == "blocks" and not isinstance(module, Model | Backbone | Residual | Bidirectional | Sum):
            return scope
        elif depth == "layers" and (is_norm(module) or isinstance(module, MixtureOfExperts) or _is_leaf(module)):
            return scope
    return node


def _computes(node: torch.fx.Node) -> bool:
    """Whether an operation does more than reshape, select or fill, or add zeros that it was given to begin with."""
    name = _python_name(node)
    zeros = any(_python_name(a) in ("zeros", "zeros_like", "new_zeros") for a in node.all_input_nodes)
    return name not in QUIET and not (zeros and name in ("add", "iadd", "radd"))


def _is_leaf(module: nn.Module) -> bool:
    """Whether a layer is drawn whole: it has none inside, and is more than a place for weights of a mixer's own."""
    return not isinstance(module, Mixer | Residual) and next(module.children(), None) is None


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises: the name of its class says so."""
    return "Norm" in type(module).__name__ and not isinstance(module, Residual)


def _node(key: Any, members: list[torch.fx.Node], modules: dict[str, nn.Module], model: Model) -> Node:
    last = members[-1]
    shape = next((tuple(m.meta["shape"]) for m in reversed(members) if m.meta["shape"]), ())
    weights = dict.fromkeys(str(a.target) for m in members for a in m.all_input_nodes if a.op == "get_attr")
    scopes = [scope for scope in last.meta["scopes"] if scope.kind]
    path = scopes[-1].name if scopes else ""
    if last.op in ("placeholder", "output"):
        label = {"inputs": "tokens", "output": "logits"}.get(str(last.target), str(last.target).replace("_", " "))
        return Node(label, "end", "", shape)
    if isinstance(key, Scope) and key.kind:
        own = key.name.rpartition(".")[2]
        name = "" if own.isdigit() or own in ("inner", "norm", "embedding") else own
        return Node(key.kind, _kind(key.name, modules, model), key.name, shape, name, tuple(weights))
    label = key.name.partition(".")[2] if isinstance(key, Scope) else name_of(members[0])
    label = label.removesuffix("_naive").strip("_").replace("_", " ")
    kind = _kind(path, modules, model)
    if kind == "other" and label in ("+", "−", "×", "÷"):
        kind = "sum"
    return Node(label, kind, path, shape, "", tuple(weights))


def name_of(node: torch.fx.Node) -> str:
    """What an operation is called; with the number, where a number is an operand."""
    name = _python_name(node)
    label = SYMBOLS.get(name, name.removeprefix("fft_"))
    numbers = [a for a in node.args if isinstance(a, int | float)]
    if label in ("+", "−", "×", "÷") and len(node.args) == 2 and len(numbers) == 1:
        number = f"{numbers[0]:.3g}".replace("-", "−")
        return f"{number} {label}" if name.startswith("r") else f"{label} {number}"
    return label


def _python_name(node: torch.fx.Node) -> str:
    if node.target is getattr:
        return str(node.args[1])
    return str(node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target)).strip("_")


def _kind(path: str, modules: dict[str, nn.Module], model: Model) -> Kind:
    """What a module is for, or an operation inside it: the modules around it say."""
    parts = path.split(".") if path else []
    around = [modules[".".join(parts[: i + 1])] for i in range(len(parts))]
    if around and is_norm(around[-1]):
        return "norm"
    channels = tuple({CHANNELS.resolve(part.kind) for part in model.recipe.channels if part is not None})
    for module in around:
        if isinstance(module, Mixer):
            return "channel" if isinstance(module, channels) else "mixer"
    if any(isinstance(module, Embedding) for module in around) or parts[:1] == ["head"]:
        return "embedding"
    return "other"


def fold(graph: Graph, times: int) -> Graph | None:
    """The graph with the first of so many equal parts in a row alone, its nodes marked; None if there are none.

    The parts begin with the first layer. Equal are those whose nodes have the same labels and the same arrows among them
    and from the part before; from the last of them alone may arrows leave for what follows.
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
    shift = [i if i < start else start + (i - start) % size if i < end else i - last + start for i in range(len(graph.nodes))]
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

"""The graph of a figure: what a recorded pass looks like from near (every operation) or far (blocks).

A unit is a call of a module or of a function of `zoo.ops` that is drawn as one node. Which calls are units is all that
tells the depths apart:

    blocks      the embedding, each norm and mixer between the blocks, the head
    layers      modules without modules inside, and functions of `zoo.ops`
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
        """The graph less some nodes, through which arrows go on to what follows."""
        before: dict[int, set[int]] = {i: set() for i in range(len(self.nodes))}
        for a, b in sorted(self.edges, key=lambda edge: edge[1]):
            before[b] |= before[a] if unwanted(a) else {a}
        kept = [i for i in range(len(self.nodes)) if not unwanted(i)]
        place = {i: k for k, i in enumerate(kept)}
        edges = tuple(sorted((place[a], place[b]) for b in kept for a in before[b]))
        return replace(self, nodes=tuple(self.nodes[i] for i in kept), edges=edges)


def collapse(traced: torch.fx.GraphModule, model: Model, depth: Depth) -> Graph:
    """The graph of a recorded pass of `model`, as it looks at a depth."""
    modules = dict(model.named_modules())
    variable = depending(traced.graph)
    groups: dict[Any, list[torch.fx.Node]] = {}
    group: dict[torch.fx.Node, Any] = {}
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            continue
        key = _unit(node, modules, depth)
        if node.op == "call_function" and node.target is operator.getitem and node.args[0].meta["shape"] == ():
            key = group[node.args[0]]  # one of the results of a call
        group[node] = key
        groups.setdefault(key, []).append(node)
    place = {key: i for i, key in enumerate(groups)}
    edges = {
        (place[group[a]], place[group[b]])
        for b in group
        for a in reads(b)
        if a in group and group[a] != group[b]
    }
    nodes = [_node(key, members, modules, model) for key, members in groups.items()]
    moves = [not variable.isdisjoint(members) for members in groups.values()]
    whole = Graph(tuple(nodes), tuple(sorted(edges)))
    used = reaches(whole, [len(nodes) - 1], backwards=True)
    dead = [i not in used and node.kind != "end" for i, node in enumerate(nodes)]  # its shape alone was read
    if depth == "operations":
        constant = [node if moving else replace(node, kind="constant") for node, moving in zip(nodes, moves, strict=True)]
        return replace(whole, nodes=tuple(constant)).without(dead.__getitem__)
    unit = [isinstance(key, Scope) for key in groups]
    heads = [None if scoped else members[0] for scoped, members in zip(unit, groups.values(), strict=True)]
    return whole.without(lambda i: dead[i] or (heads[i] is not None and (not moves[i] or _computes_nothing(heads[i]))))


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
        elif is_norm(module) or (not isinstance(module, Mixer | Residual) and not any(True for _ in module.children())):
            return scope
    return node


def _computes_nothing(node: torch.fx.Node) -> bool:
    """Whether an operation reshapes, selects or fills, or adds zeros that it was given to begin with."""
    name = _python_name(node)
    zeros = [a for a in node.all_input_nodes if _python_name(a) in ("zeros", "zeros_like", "new_zeros")]
    return name in QUIET or (name in ("add", "iadd", "radd") and bool(zeros))


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
        label = {"inputs": "tokens" if model.shape.vocab else "vectors", "output": "logits"}.get(str(last.target), str(last.target))
        return Node(label.replace("_", " "), "end", "", shape)
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


def repeated(short: Graph, long: Graph) -> Graph | None:
    """`short` with the nodes marked that `long`, the graph of more layers, has once more; None if it has others."""
    more = len(long.nodes) - len(short.nodes)
    start = next((i for i, node in enumerate(short.nodes) if ".sublayers.0." in f"{node.path}."), 0)
    end, one, two = start + more, _signatures(short), _signatures(long)
    if more <= 0 or two != one[:end] + one[start:end] + one[end:]:
        return None
    nodes = [replace(node, repeated=start <= i < end) for i, node in enumerate(short.nodes)]
    return replace(short, nodes=tuple(nodes))


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

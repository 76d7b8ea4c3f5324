"""From a recorded pass to the graph of a figure: from near, every operation; from far, blocks.

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
from dataclasses import replace
from typing import Any

import torch.fx
from torch import nn

from zoo.blocks.bidirectional import Bidirectional
from zoo.blocks.heads import Embedding
from zoo.blocks.residual import Residual
from zoo.contract import Backbone, Mixer, Model
from zoo.figures.graph import Depth, Graph, Kind, Node, reaches
from zoo.figures.trace import Scope, depending, reads
from zoo.layers import CHANNELS
from zoo.layers.mixture_of_experts import MixtureOfExperts
from zoo.layers.side_by_side import Sum

SYMBOLS = {
    "add": "+", "iadd": "+", "radd": "+", "sum": "sum", "sub": "−", "rsub": "−", "isub": "−", "mul": "×", "imul": "×",
    "rmul": "×", "div": "÷", "truediv": "÷", "rtruediv": "÷", "rdiv": "÷", "rpow": "power", "pow": "power", "neg": "−",
    "matmul": "matmul", "rmatmul": "matmul", "getitem": "select", "setitem": "write", "invert": "not",
    "scaled_dot_product_attention": "dot-product attention",
}  # fmt: skip
"""What functions are called where Python's names are not the usual ones."""
QUIET = {
    *("view", "view_as", "reshape", "unflatten", "flatten", "transpose", "permute", "movedim", "swapaxes", "T", "mT"),
    *("expand", "expand_as", "squeeze", "unsqueeze", "contiguous", "to", "float", "double", "type_as", "clone"),
    *("getitem", "select", "chunk", "split", "unbind", "narrow", "detach", "pad", "broadcast_to", "diagonal", "real"),
    *("zeros_like", "zeros", "new_zeros", "ones_like", "empty", "empty_like", "full", "bool", "long"),
    *("view_as_real", "view_as_complex"),
}  # fmt: skip
"""Operations that compute nothing: left out but at the depth of operations."""


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

    near = graph.without(unwanted)
    return near if depth == "operations" else replace(near, nodes=tuple(map(_named, near.nodes)))


def _named(node: Node) -> Node:
    """An operation with the name of the weights it reads: `linear gate`, where a mixer does what its layer would do."""
    rest = [weight.removeprefix(f"{node.path}.").partition(".")[0] for weight in node.weights]
    owners = {*rest} - {"weight", "bias"}
    return replace(node, name=owners.pop()) if not node.name and len(owners) == 1 and node.kind != "norm" else node


def _unit(node: torch.fx.Node, modules: dict[str, nn.Module], depth: Depth) -> Any:
    """The call that a node is drawn as a part of: the outermost that is a unit, or the node itself."""
    if depth == "operations" or node.op in ("placeholder", "output"):
        return node
    for scope in node.meta["scopes"]:
        if _is_unit(modules[scope.name] if scope.kind else None, depth):
            return scope
    return node


def _is_unit(module: nn.Module | None, depth: Depth) -> bool:
    """Whether a module, or a function of `zoo.ops` (None), is drawn whole."""
    if depth == "blocks":
        return module is not None and not isinstance(module, Model | Backbone | Residual | Bidirectional | Sum)
    return module is None or is_norm(module) or isinstance(module, MixtureOfExperts) or _is_leaf(module)


def _computes(node: torch.fx.Node) -> bool:
    """Whether an operation does more than reshape, select or fill, or add zeros that it was given to begin with."""
    name = _python_name(node)
    zeros = any(_python_name(a) in ("zeros", "zeros_like", "new_zeros") for a in node.all_input_nodes)
    return name not in QUIET and not (zeros and not node.meta["after"] and name in ("add", "iadd", "radd"))


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
    """What Python calls an operation, without underscores around."""
    if node.target is getattr:
        return str(node.args[1])
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target)
    return str(name).strip("_")


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

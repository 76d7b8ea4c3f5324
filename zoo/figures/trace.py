"""One forward pass of a model as a `torch.fx` graph: every call of torch that ran, and where its tensors came from.

`torch.export` and `torch.fx.symbolic_trace` do not get through every architecture, as some decide in Python by the
numbers they compute (routers, hashes), and neither knows which function of `zoo.ops` called what. So the pass is made
with numbers, under a `TorchFunctionMode` that writes each call down: one way for all, in milliseconds. What it wrote is
a program: `GraphModule.forward` computes the model's logits again, of other tokens too, which is how tests know that
nothing is missing and no arrow is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from operator import getitem
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
import torch.fx
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zoo.contract import Batch, Model, quiet
from zoo.ops import forms

OPS = Path(forms.__file__).parent
READS = ("item", "tolist", "__int__", "__float__", "__index__")
"""Methods of tensors that hand numbers to Python."""


class Scope(NamedTuple):
    """A call that an operation stands in: of a module's method, or of a function of `zoo.ops`."""

    name: str
    """The module's path in the model (empty for the model itself), or `op.function`."""
    kind: str
    """The module's class; empty for a function."""
    call: int
    """Which call it is, as a module may be called twice."""


def trace(model: Model, batch: Batch) -> torch.fx.GraphModule:
    """The graph of `model(batch)` in evaluation, where torch's forms compute all ops.

    Its inputs are the tensors of `batch` in order, its output the logits. Each node has in `meta` its `scopes` (from
    the model inwards), its `shape`, and `after`: nodes that wrote into memory it reads. What the logits do not depend
    on is left out. `meta["fixed"]` of the graph names the modules in which Python went by numbers it read from tensors,
    as a router does that counts the tokens of each expert: there the graph is that of these tokens.
    """
    recorder = Recorder(model, batch)
    with quiet(model), forms.torch_alone(), torch.random.fork_rng(devices=[]):
        with recorder:
            logits = model(batch)
        return recorder.finish(logits)


class Recorder(TorchFunctionMode):
    """Writes calls down. Tensors are told apart as objects; all are kept, so that no new one has an old one's id."""

    def __init__(self, model: Model, batch: Batch) -> None:
        super().__init__()
        self.graph, self.attributes = torch.fx.Graph(), dict[str, Tensor]()
        self.modules = {id(module): name for name, module in model.named_modules()}
        self.known = {id(x): name for name, x in (*model.named_buffers(), *model.named_parameters())}
        self.nodes, self.kept = dict[int, torch.fx.Node](), list[Tensor]()
        self.writers = dict[int, torch.fx.Node]()
        self.frames = dict[FrameType, Scope | None]()
        self.scopes: tuple[Scope, ...] = ()
        self.read: list[tuple[torch.fx.Node, str]] = []
        for name, x in batch.arrays().items():
            self._bind(x, self.graph.placeholder(name))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((args, kwargs)))
        versions = [x._version for x in given]
        result = func(*args, **kwargs)
        written = [x for x, version in zip(given, versions, strict=True) if x._version != version]
        if written or any(all(x is not known for known in given) for x in _tensors(result)):
            self.scopes = self._where(sys._getframe(1))
            after = {self.writers[key] for x in given if (key := _memory(x)) in self.writers}
            node = _call(self.graph, func, _map(self._node, args), _map(self._node, kwargs))
            node.meta.update(after=sorted(after), scopes=self.scopes, shape=written[0].shape if written else ())
            self.writers.update((_memory(x), node) for x in written)
            self._unpack(result, node)
        elif given and getattr(func, "__name__", "") in READS:
            self.read.append((self._node(given[0]), self._where(sys._getframe(1))[-1].name))
        return result

    def finish(self, logits: Tensor) -> torch.fx.GraphModule:
        """The graph up to the logits."""
        end = self.graph.output(self._node(logits))
        end.meta.update(scopes=(), shape=logits.shape, after=[])
        variable = depending(self.graph)
        fixed = [*dict.fromkeys(name for node, name in self.read if node in variable)]
        needed, open_ = {end}, [end]
        while open_:
            node = open_.pop()
            new = {*node.all_input_nodes, *node.meta["after"]} - needed
            needed |= new
            open_ += new
        for node in reversed(self.graph.nodes):
            if node not in needed and node.op != "placeholder":
                self.graph.erase_node(node)
        module = torch.fx.GraphModule(self.attributes, self.graph)
        module.meta["fixed"] = fixed
        return module

    def _unpack(self, result: Any, node: torch.fx.Node) -> None:
        """Note where the tensors of a result come from: the call, or parts of what it returned."""
        if isinstance(result, Tensor):
            if id(result) not in self.nodes:
                self._bind(result, node)
        elif isinstance(result, tuple | list):
            for i, part in enumerate(result):
                if any(id(x) not in self.nodes for x in _tensors(part)):
                    item = self.graph.call_function(getitem, (node, i))
                    item.meta.update(scopes=self.scopes, shape=(), after=[])
                    self._unpack(part, item)

    def _bind(self, x: Tensor, node: torch.fx.Node) -> None:
        self.kept.append(x)
        self.nodes[id(x)] = node
        node.meta = {"after": [], "scopes": self.scopes, **node.meta, "shape": x.shape}

    def _node(self, x: Tensor) -> torch.fx.Node:
        """Where a tensor came from; one that no call made is a parameter, a buffer or a constant."""
        if id(x) not in self.nodes:
            name = self.known.get(id(x), f"constant_{len(self.attributes)}")
            self.attributes[name] = x
            self._bind(x, self.graph.create_node("get_attr", name))
        return self.nodes[id(x)]

    def _where(self, frame: FrameType | None) -> tuple[Scope, ...]:
        """The modules and ops of which methods and functions are being called, from the model inwards."""
        found: list[Scope] = []
        while frame is not None:
            if scope := self._scope(frame):
                if found and found[-1].name == scope.name:
                    found.pop()  # of the calls inside of one module or op, the outermost is the call of it
                found.append(scope)
            frame = frame.f_back
        return tuple(reversed(found))

    def _scope(self, frame: FrameType) -> Scope | None:
        if frame not in self.frames:
            owner, path = frame.f_locals.get("self"), Path(frame.f_code.co_filename)
            found, call = None, len(self.frames)
            if id(owner) in self.modules:
                found = Scope(self.modules[id(owner)], type(owner).__name__, call)
            elif path.parent.parent == OPS:
                found = Scope(f"{path.parent.name}.{frame.f_code.co_name}", "", call)
            self.frames[frame] = found
        return self.frames[frame]


def reads(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The nodes whose numbers an operation reads, directly or because they wrote where it reads; not those of which it
    takes the shape alone, such as the `x` of `zeros_like(x)`."""
    name = str(node.target if isinstance(node.target, str) else getattr(node.target, "__name__", ""))
    if name.endswith("_like") or name.startswith("new_"):
        return []
    inputs = [node.args[0]] if name in ("view_as", "expand_as", "type_as", "reshape_as") else node.all_input_nodes
    return [*dict.fromkeys((*inputs, *node.meta["after"]))]


def depending(graph: torch.fx.Graph) -> set[torch.fx.Node]:
    """The nodes that the inputs of a recorded graph change, the inputs included."""
    found: set[torch.fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or not found.isdisjoint(reads(node)):
            found.add(node)
    return found


def _call(graph: torch.fx.Graph, func: Callable[..., Any], args: Any, kwargs: Any) -> torch.fx.Node:
    """A call in the words of torch.fx, which has methods by their names and attributes as `getattr`."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return graph.call_function(getattr, (args[0], func.__self__.__name__))  # type: ignore[attr-defined]
    if getattr(Tensor, name, None) is func or func.__module__ == "torch._tensor":
        return graph.call_method(name, args, kwargs)
    return graph.call_function(func, args, kwargs)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists, dicts and slices."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors([*value.values()])
    elif isinstance(value, slice):
        yield from _tensors((value.start, value.stop, value.step))


def _map(change: Callable[[Tensor], Any], value: Any) -> Any:
    """The same nesting with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, tuple | list):
        return type(value)(_map(change, part) for part in value)
    if isinstance(value, dict):
        return {key: _map(change, part) for key, part in value.items()}
    if isinstance(value, slice):
        return slice(*(_map(change, part) for part in (value.start, value.stop, value.step)))
    return value


def _memory(x: Tensor) -> int:
    """What views of one tensor share."""
    return x.untyped_storage()._cdata

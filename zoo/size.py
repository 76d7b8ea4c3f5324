"""The size of a built model (parameters, training FLOPs, state bytes), and the size that comes nearest a target."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import zoo
from zoo import architectures
from zoo.contract import ROLES, Batch, Model, Role, Shape, Unsupported, state_bytes
from zoo.layers.mixture_of_experts import MixtureOfExperts
from zoo.ops import flops

T = TypeVar("T")
Count: TypeAlias = Literal["total", "non_embedding", "active"]
Builder: TypeAlias = Callable[..., Model]
"""(name, role, shape, **options) → Model."""


def parameters(model: Model, count: Count = "total") -> int:
    """Trainable parameters: all of them, those of the backbone only (no token or position table, no output head), or
    of these the ones that one step goes through, which leaves out the experts that are not chosen for it."""
    module = model if count == "total" else model.backbone
    idle = sum(part.inactive for part in module.modules() if type(part) is MixtureOfExperts) if count == "active" else 0
    return sum(p.numel() for p in module.parameters() if p.requires_grad) - idle


def active_parameters(model: Model) -> int | None:
    """See `parameters`; None where every step goes through all of the backbone."""
    active = parameters(model, "active")
    return None if active == parameters(model, "non_embedding") else active


def _flash_forward(q: list[int], k: list[int], v: list[int], *_: Any, **__: Any) -> int:
    B, H, T, K = q
    return 2 * B * H * T * k[2] * (K + v[-1])


def _flash_backward(grad: list[int], q: list[int], k: list[int], v: list[int], *_: Any, **__: Any) -> int:
    B, H, T, K = q
    return 2 * B * H * T * k[2] * (3 * K + 2 * v[-1])


def _rnn_forward(x: list[int], w_input: list[int], w_hidden: list[int], *_: Any, **__: Any) -> int:
    return 2 * x[0] * x[1] * (math.prod(w_input) + math.prod(w_hidden))


def _rnn_backward(x: list[int], w_input: list[int], w_hidden: list[int], *args: Any, **kwargs: Any) -> int:
    return 2 * _rnn_forward(x, w_input, w_hidden)


def _cudnn_forward(x: list[int], weights: list[list[int]], *_: Any, **__: Any) -> int:
    return 2 * math.prod(x[:-1]) * sum(math.prod(w) for w in weights if len(w) == 2)


def _cudnn_backward(x: list[int], weights: list[list[int]], *_: Any, **__: Any) -> int:
    return 2 * _cudnn_forward(x, weights)


def _convolution_backward(grad: list[int], x: list[int], w: list[int], *args: Any, **_: Any) -> int:
    mask = args[-1]  # which of the gradients of input, weight and bias are asked for
    return 2 * math.prod(grad) * math.prod(w[1:]) * sum(mask[:2])


_FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _flash_forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _flash_backward,
    torch.ops.aten.convolution_backward: _convolution_backward,
    torch.ops.aten.mkldnn_rnn_layer: _rnn_forward,
    torch.ops.aten.mkldnn_rnn_layer_backward: _rnn_backward,
    torch.ops.aten._cudnn_rnn: _cudnn_forward,
    torch.ops.aten._cudnn_rnn_backward: _cudnn_backward,
}
"""Kernels for which torch's counter has no formula, and one for which it is wrong: it counts every pair of channels
for the gradients of a depthwise convolution. Attention counts every score, masked or not, in either form."""


class Products(FlopCounterMode):
    """torch's counter, which leaves out what a backward pass computes again; that much is in `left_out`."""

    left_out = 0

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=_FORMULAS)

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        if not flops.paused:
            return super()._count_flops(func_packet, out, args, kwargs)
        if func_packet in self.flop_registry:
            self.left_out += self.flop_registry[func_packet](*args, **kwargs, out_val=out)
        return out


def training_flops(
    model: Model,
    batch: Batch,
    loss: Callable[[Tensor, Batch], Tensor],
    *,
    autocast: AbstractContextManager[Any] | None = None,
) -> int:
    """FLOPs of one forward pass, under `autocast`, and backward pass over `batch`, by counting the operators it runs.

    Counted: matrix products, convolutions, attention, recurrent kernels, FFTs and scans, but no elementwise work.
    Gradients and random state are left as they were.
    """
    saved = [p.grad for p in model.parameters()]
    for p in model.parameters():
        p.grad = None  # or backward would add to it in place
    counter = Products()
    with torch.random.fork_rng(), flops.Counter() as own, counter:
        with autocast or nullcontext():
            logits = model(batch)
        loss(logits, batch).backward()
    for p, grad in zip(model.parameters(), saved, strict=True):
        p.grad = grad
    return counter.get_total_flops() + own.total


def recurrent_state_bytes(model: Model, length: int) -> int | None:
    """Bytes carried from one decoding step to the next after `length` tokens; None for a model that cannot resume.

    A model on the meta device is measured without computing. A size that is the same after 1, 2 and 65 tokens is taken
    to be constant: steps one by one are slow even on the meta device.
    """
    try:
        early = {_state_bytes_after(model, steps) for steps in (1, 2, 65)} if length > 65 else set()
        return early.pop() if len(early) == 1 else _state_bytes_after(model, length)
    except Unsupported:
        return None


def _state_bytes_after(model: Model, length: int) -> int:
    device = next(model.parameters()).device
    with torch.no_grad():
        _, state = model.extend(torch.zeros(1, length, dtype=torch.long, device=device), model.init_state(1))
    return state_bytes(state)


def sketch(name: str, role: Role, shape: Shape, **options: Any) -> Model:
    """The model on the meta device: shapes without memory."""
    with torch.device("meta"):
        return zoo.build(name, role, shape=shape, **options)


def sketch_roles(name: str) -> dict[Role, Model]:
    """A small sketch of the architecture, as it is by default, in every role that it can play."""
    recipe = architectures.recipe(name)
    shape = Shape(length=64, vocab=16, outputs=16, target_length=64, width=16 * recipe.width_multiple)
    found: dict[Role, Model] = {}
    for role in ROLES:
        with suppress(Unsupported):
            found[role] = sketch(name, role, shape, depth=len(recipe.mixers))
    return found


@dataclass(frozen=True, slots=True)
class Size:
    """A width and depth, and the parameters and state they give."""

    width: int
    depth: int
    params: int
    params_non_embedding: int
    state_bytes: int | None
    target: float | None = None
    mismatch: float | None = None
    """(reached − target) / target."""
    params_active: int | None = None
    """See `active_parameters`."""


def decoded_length(role: Role, shape: Shape) -> int:
    """The number of decoding steps after which a state is measured: the target's length for `seq2seq`."""
    return shape.length if role != "seq2seq" else shape.target_length or 1


def measure(name: str, role: Role, shape: Shape, **options: Any) -> Size:
    """The size of an architecture at a given width.

    Raises:
        Unsupported: it cannot play the role.
    """
    model = sketch(name, role, shape, **options)
    return Size(
        width=model.shape.width,
        depth=model.shape.depth or 0,
        params=parameters(model),
        params_non_embedding=parameters(model, "non_embedding"),
        state_bytes=recurrent_state_bytes(model, decoded_length(role, shape)),
        params_active=active_parameters(model),
    )


Quantity: TypeAlias = Callable[[Model], float]
"""The matched quantity, measured on the built model."""


def solve_width(
    name: str, role: Role, shape: Shape, *, target: float, of: Quantity, build: Builder = sketch, **options: Any
) -> Size:
    """The width at which `of` comes nearest `target`, by bisection on the real module.

    `of` must not fall as the width grows. Models are made by `build`; by default `sketch`, on the meta device.

    Raises:
        Unsupported: it cannot play the role, or `of` has nothing to measure on it.
        ValueError: not even the narrowest width is small enough to come within a factor of two.
    """
    step = _step(name, role, shape, options)
    seen: dict[int, float] = {}

    def reached(k: int) -> float:
        if k not in seen:
            seen[k] = of(build(name, role, dataclasses.replace(shape, width=k * step), **options))
        return seen[k]

    low = _narrowest(reached)
    high = 2 * low
    if reached(low) > 2 * target:
        raise ValueError(f"{name}: the narrowest model has {reached(low):,.0f}, the target is {target:,.0f}")
    while reached(high) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reached(middle) < target else (low, middle)
    best = min((low, high), key=lambda k: abs(reached(k) - target))
    size = measure(name, role, dataclasses.replace(shape, width=best * step), **options)
    return dataclasses.replace(size, target=target, mismatch=(reached(best) - target) / target)


def solve_size(name: str, role: Role, shape: Shape, *, tolerance: float, **given: Any) -> Size:
    """The width nearest the target; if that misses by more than `tolerance`, other depths are tried, the nearest first.

    They lie between half and twice the architecture's own. If none comes within the tolerance, the nearest size is
    returned. `given` is as in `solve_width`.

    Raises:
        Unsupported, ValueError: as `solve_width`, at the architecture's own depth.
    """
    sizes = [solve_width(name, role, shape, **given)]
    own = sizes[0].depth
    for depth in sorted(range(max(1, own // 2), 2 * own + 1), key=lambda d: (abs(d - own), d)):
        if abs(sizes[-1].mismatch or 0.0) <= tolerance:
            return sizes[-1]
        if depth != own:
            with suppress(ValueError):  # too deep for the target, or for a residual type of pairs
                sizes.append(solve_width(name, role, dataclasses.replace(shape, depth=depth), **given))
    return min(sizes, key=lambda size: abs(size.mismatch or 0.0))


def _step(name: str, role: Role, shape: Shape, options: dict[str, Any]) -> int:
    """What widths must be multiples of: the recipe's own, or twice or four times that (rotations need even heads)."""
    own = architectures.recipe(name, **options).width_multiple
    wide = (dataclasses.replace(shape, width=33 * factor * own) for factor in (1, 2, 4))
    built = _first(wide, lambda shape: sketch(name, role, shape, **options))
    return own if built is None else built.width // 33


def _narrowest(reached: Callable[[int], float], limit: int = 64) -> int:
    """The first k that builds: an option may ask for a width of its own (half the width in hidden units, say)."""
    k = _first(range(1, limit), reached)
    if k is None:
        reached(limit)
    return k or limit


def _first(candidates: Iterable[T], build: Callable[[T], Any]) -> T | None:
    """The first of `candidates` that builds without a ValueError other than `Unsupported`."""
    for candidate in candidates:
        try:
            build(candidate)
        except Unsupported:
            raise
        except ValueError:
            continue
        return candidate
    return None

"""The contract that every mixer, backbone and model of the zoo keeps. See `zoo.types` for its terms.

Shapes: B batch, T time, D width, V vocabulary, C classes, U target time.
"""

# ruff: noqa: F401  # the types stand here too, so that a mixer imports all it needs from one place
from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zoo.types import ROLES, Batch, LayerContext, ParamOverride, Part, Recipe, Role, Shape, State, Traits, Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoo.tokenizers import Tokenizer

Mask: TypeAlias = Bool[Tensor, "B T"]
"""True on valid steps; padding stands on the right."""
Mixed: TypeAlias = tuple[Float[Tensor, "B T D"], State | None]
"""What a mixer returns: its outputs and, given a state, the next one."""


class Mixer(nn.Module):
    """Moves information along time (or, as a channel mixer, along features). No norm and no residual inside.

    A subclass sets `traits`, takes a `LayerContext` and its options (keyword-only, checked there), and defines
    `forward`. If it is resumable it also defines `init_state`, and `forward` returns the new state if given one.
    """

    traits: ClassVar[Traits]
    relative: ClassVar[tuple[Literal["rotation", "bias"], ...]] = ()
    """What it can apply of `LayerContext.positions`: rotations of queries and keys, a bias on their scores."""
    shared_context: ClassVar[bool] = False
    """`forward` takes one more keyword, `shared_context`: a dict that all layers share during one pass (RWKV-7).

    Under "residual" it holds what the mixer's result is added to, before any norm (Mega).
    """

    feeds_matmul_only: ClassVar[bool] = False
    """Whether linear layers alone read x, so that under autocast it may come rounded to the dtype of their products."""

    def __init__(self, context: LayerContext) -> None:
        super().__init__()
        if context.causal and self.traits.causal == "no":
            raise Unsupported(f"{type(self).__name__} looks both ways and cannot be made causal")
        if not context.causal and not self.traits.bidirectional:
            raise Unsupported(f"{type(self).__name__} looks back only; wrap it in zoo.blocks.Bidirectional")

    @classmethod
    def width_multiple(cls, *_: Any, **options: Any) -> int:
        """What widths must be multiples of under `options` (defaults included); if not overridden, of `heads`."""
        heads = options.get("heads")
        return heads if isinstance(heads, int) else 1

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        """Mix `x` over time; `mask` is true on valid steps. With a `state`, continue from it and return the next."""
        raise NotImplementedError

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """The state before the first step. Empty for a module that carries nothing."""
        return {}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Initialise this mixer's own parameters as its paper does; PyTorch's defaults stand where it says nothing."""

    def param_overrides(self) -> dict[str, ParamOverride]:
        """How the optimiser should treat parameters, by name relative to this module."""
        former: Any = getattr(self, "hints", dict)  # the name of this method before 0.1
        overrides: dict[str, ParamOverride] = former()
        return overrides


class Backbone(nn.Module):
    """A stack of blocks from (B, T, D) to (B, T, D): the universal contract.

    It decides what passes between its blocks: RWKV-7, ResiDual and Reformer carry more than one tensor there.
    """

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        """As `Mixer.forward`, for the whole stack, final norm included."""
        raise NotImplementedError

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        raise NotImplementedError


class Model(nn.Module):
    """Embedding, Backbone and head for one role. Build one with `zoo.build`."""

    role: Role
    shape: Shape
    recipe: Recipe
    traits: Traits
    backbone: Backbone
    tokenizer: Tokenizer | None = None
    """Text to tokens and back, where that is known."""
    built: Mapping[str, Any] = {}
    """`architecture` and `options`, as given to `zoo.build`."""
    template: Any = None
    """What its states look like, once `zoo.inputs` has looked."""

    def _apply(self, fn: Any, recurse: bool = True) -> Model:
        self.template = None  # as states follow dtype and device of the weights
        super()._apply(fn, recurse)
        return self

    @property
    def longest(self) -> int | None:
        """The longest sequence it can read, in steps; None without a limit."""
        return None if self.traits.length == "any" else self.shape.length

    def forward(self, batch: Batch) -> Tensor:
        """Logits: lm, masked and reconstruct (B, T, V) · classify and retrieve (B, C) · seq2seq (B, U, V)."""
        raise NotImplementedError

    def init_state(self, batch: int) -> State:
        """The state before the first token.

        Raises:
            Unsupported: the architecture is not resumable.
        """
        raise Unsupported(f"{type(self).__name__} has no decoding state")

    def empty_state(self) -> State:
        """A state of one row as `extend` reads it, where sizes that grow with time are 0."""
        return self.init_state(1)

    def extend(self, tokens: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T V"], State]:
        """Feed `tokens` after `state`: their logits and the next state. T = 1 is one decoding step.

        Raises:
            ValueError: the tokens or the state are not this model's (`zoo.inputs`).
        """
        raise Unsupported(f"{type(self).__name__} cannot be extended token by token")

    def param_overrides(self) -> dict[str, ParamOverride]:
        """Every override in the model, by full parameter name."""
        found: dict[str, ParamOverride] = {}
        for prefix, module in self.named_modules():
            own: Any = getattr(module, "param_overrides", None)
            if module is not self and own is not None:
                found |= {f"{prefix}.{name}": override for name, override in own().items()}
        return found


def combine(traits: list[Traits]) -> Traits:
    """The traits of a whole: in each respect those of its weakest part."""
    causal = [t.causal for t in traits]
    lengths = [t.length for t in traits]
    return Traits(
        causal="no" if "no" in causal else "leaky" if "leaky" in causal else "strict",
        bidirectional=all(t.bidirectional for t in traits),
        resumable=all(t.resumable for t in traits),
        length="fixed" if "fixed" in lengths else "max" if "max" in lengths else "any",
        multiple=math.lcm(*(t.multiple for t in traits)),
        padding_safe=all(t.padding_safe for t in traits),
        stochastic=any(t.stochastic for t in traits),
    )


def leaves(state: State) -> Iterator[Tensor]:
    """Every tensor in a state, depth first."""
    for value in state.values():
        if isinstance(value, Tensor):
            yield value
        else:
            yield from leaves(value)


def chosen(state: State, rows: Int[Tensor, " R"]) -> State:
    """These rows of every tensor in a state, in this order; a row may be chosen several times."""
    return {k: v.index_select(0, rows) if isinstance(v, Tensor) else chosen(v, rows) for k, v in state.items()}


@contextmanager
def quiet(model: Model) -> Iterator[None]:
    """A context without gradients and dropout; it leaves every module's mode as found."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's first parameter, or of its first buffer; the CPU for one that has neither."""
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def state_bytes(state: State) -> int:
    """Bytes a state occupies."""
    return sum(tensor.numel() * tensor.element_size() for tensor in leaves(state))

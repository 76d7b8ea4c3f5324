"""The types of the contract that need no torch: what an architecture says about itself, and the shape it is built for.

They import in milliseconds. `zoo.contract` adds the modules (`Mixer`, `Backbone`, `Model`) and re-exports all of them.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import reprlib
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from zoo.registry import snake

if TYPE_CHECKING:
    import torch

Role: TypeAlias = Literal["lm", "masked", "classify", "retrieve", "seq2seq", "reconstruct"]
ROLES: tuple[Role, ...] = get_args(Role)
LABELLED: tuple[Role, ...] = ("classify", "retrieve")
"""Roles with one answer for a whole example."""
STEPWISE: tuple[Role, ...] = ("lm", "masked", "reconstruct")
"""Roles with an answer at every step of the input."""
Schedule: TypeAlias = Literal["cosine", "linear", "constant", "inverse_sqrt"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


class BadInput(ValueError):
    """What a user gave cannot be used. The message says what, where, and what to do."""


class Unsupported(ValueError):
    """A combination that cannot be, such as MLP-Mixer as a causal language model.

    Raised while a model is being built, never in the middle of training; the harness turns it into a row that says so.
    """


@dataclass(frozen=True, slots=True)
class Traits:
    """What a mixer can do. Every claim here is tested; a false one fails `zoobench check`."""

    causal: Literal["strict", "leaky", "no"]
    """`strict`: output t depends on inputs up to t only. `leaky`: masked, yet the future shifts it. `no`: sees all."""
    bidirectional: bool
    """Can look both ways by itself, without the `Bidirectional` wrapper."""
    resumable: bool
    """`forward(x, state)` continues exactly where the last call ended, one step at a time included."""
    length: Literal["any", "max", "fixed"] = "any"
    """`max`: at most `LayerContext.length` steps. `fixed`: exactly that many; the Backbone pads shorter inputs."""
    multiple: int = 1
    """T must divide by this; the Backbone pads."""
    padding_safe: bool = True
    """Junk in masked steps changes no valid output and no final state."""
    stochastic: bool = False
    """Draws hashes or random features."""


@dataclass(frozen=True, slots=True)
class ParamOverride:
    """How the optimiser should treat one parameter; `None` leaves the default."""

    lr_scale: float = 1.0
    lr_max: float | None = None
    """A ceiling on this parameter's learning rate (S4 trains A, B and Δ at 1e-3 at most)."""
    decay: bool | None = None
    """`True`/`False` forces weight decay on or off; by default only weights of linear and convolution layers decay."""


@dataclass(frozen=True, slots=True)
class LayerContext:
    """Where in a model a mixer sits: all that it may know when it is built."""

    width: int
    length: int
    """The longest sequence it will see (exactly that long for `Traits.length == "fixed"`)."""
    causal: bool = True
    """Whether it must not look ahead. A mixer that cannot obey raises `Unsupported`."""
    layer: int = 0
    depth: int = 1
    positions: Part | None = None
    """Positions that the mixer itself applies, to queries, keys or scores; given only to mixers that can."""
    gain: float | None = None
    """DeepNorm's β, by which values, outputs and channel weights start smaller. None: outputs by 1/√(2 · depth)."""


MOST_DEPTH = 2**12
"""Beyond, a model is a mistake: it would take hours and all memory to find out."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a task asks of a model (inputs and outputs) and how large the model is.

    Inputs are tokens below `vocab`, or vectors of `features` numbers (pixels). `outputs` is the number of classes, or
    of tokens a language model chooses among. For `seq2seq`, `target_length` bounds the decoded sequence.
    """

    length: int
    outputs: int
    vocab: int | None = None
    features: int | None = None
    target_length: int | None = None
    width: int = 128
    depth: int | None = None
    """`None` is the architecture's own default."""

    def __post_init__(self) -> None:
        if (self.vocab is None) == (self.features is None):
            raise ValueError(
                "a Shape has either `vocab` (token inputs) or `features` (vector inputs), not both or none"
            )
        for name in ("length", "outputs", "vocab", "features", "target_length", "width", "depth"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
                raise ValueError(f"Shape.{name} must be a whole number, got {value!r}")
            if value is not None and int(value) < 1:
                raise ValueError(f"Shape.{name} must be at least 1, got {value}")
        if (self.depth or 1) > MOST_DEPTH:
            raise ValueError(f"Shape.depth must be at most {MOST_DEPTH:,}, got {reprlib.repr(self.depth)}")


@dataclass(frozen=True, slots=True)
class Part:
    """A component by class (or name) and its options: `Part(Attention, heads=4)`.

    A name is a layer's (`Part("mlp")`) or an architecture's, whose own mixer or channel mixer it means.
    """

    kind: str | type
    options: dict[str, Any] = field(default_factory=dict)

    def __init__(self, kind: str | type, /, **options: Any) -> None:
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "options", options)

    @property
    def name(self) -> str:
        """What a suite calls it: the architecture whose file defines it, or the layer."""
        if isinstance(self.kind, str):
            return self.kind
        package, _, file = self.kind.__module__.rpartition(".")
        return file if package == "zoo.architectures" else snake(self.kind.__name__)

    @property
    def width_multiple(self) -> int:
        """See `Mixer.width_multiple`; 1 for a part given by name."""
        if isinstance(self.kind, str) or not hasattr(self.kind, "width_multiple"):
            return 1
        parameters = inspect.signature(self.kind).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        multiple: int = self.kind.width_multiple(**{**defaults, **self.options})
        return multiple


@dataclass(frozen=True, slots=True)
class Recipe:
    """An architecture, spelled out as parts.

    `mixer` may be a tuple, which is then repeated over the layers (a hybrid), and `channel` a tuple beside it.
    `channel=None`: no channel mixer.
    """

    mixer: Part | tuple[Part, ...]
    channel: Part | tuple[Part | None, ...] | None = Part("mlp")
    cross: Part | None = None
    """Attention over an encoder: with it `seq2seq` is an encoder and a decoder, without it one causal stack."""
    residual: str | tuple[str, ...] = "pre"
    """One for all layers, or one beside each mixer, of types that hand on the same stream (`pre`, `reordered`)."""
    norm: str = "layer"
    positions: Part | str = "none"
    embedding: str = "normal"
    head: str = "linear"
    tie: bool = False
    """Share the token embedding with the output head: in encoder–decoders, and in language models whose outputs are as
    many as their input tokens. No effect elsewhere."""
    dropout: float = 0.0
    label_smoothing: float = 0.0
    """The part of the targets' weight that training spreads over all classes."""
    schedule: Schedule | None = None
    """This architecture's own learning-rate schedule; None for the suite's."""
    depth: int = 4
    width_multiple: int = 1
    """Widths must divide by this and by what each mixer asks for, of which it becomes the least common multiple."""

    def __post_init__(self) -> None:
        multiples = [self.width_multiple, *(part.width_multiple for part in self.mixers)]
        if min(multiples) < 1:
            raise ValueError(f"widths cannot be multiples of {min(multiples)}: heads must be at least 1")
        object.__setattr__(self, "width_multiple", math.lcm(*multiples))
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1, got {self.depth}")
        if self.depth > MOST_DEPTH:
            raise ValueError(f"depth must be at most {MOST_DEPTH:,}, got {reprlib.repr(self.depth)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        if self.schedule not in (None, *SCHEDULES):
            raise ValueError(f"unknown schedule {self.schedule!r}; known: {', '.join(SCHEDULES)}")
        if isinstance(self.mixer, tuple) and not self.mixer:
            raise ValueError("a stack needs at least one mixer")
        if any(part.name == "cross_attention" for part in self.mixers):
            raise ValueError("cross_attention reads an encoder; it stands in `cross` of a Recipe, not in `mixer`")
        if isinstance(self.channel, tuple) and len(self.channel) != len(self.mixers):
            raise ValueError(f"{len(self.mixers)} mixers and {len(self.channel)} channel mixers do not pair up")
        if len(self.residuals) != len(self.mixers):
            raise ValueError(f"{len(self.mixers)} mixers and {len(self.residuals)} residual types do not pair up")

    @property
    def mixers(self) -> tuple[Part, ...]:
        return self.mixer if isinstance(self.mixer, tuple) else (self.mixer,)

    @property
    def channels(self) -> tuple[Part | None, ...]:
        """A channel mixer for each of `mixers`."""
        return self.channel if isinstance(self.channel, tuple) else (self.channel,) * len(self.mixers)

    @property
    def residuals(self) -> tuple[str, ...]:
        """A residual type for each of `mixers`."""
        return self.residual if isinstance(self.residual, tuple) else (self.residual,) * len(self.mixers)

    def replace(self, **changes: Any) -> Recipe:
        return dataclasses.replace(self, **changes)


State: TypeAlias = dict[str, Any]
"""What a resumable module carries from one call to the next: a nested dict of named tensors, batch first."""


@dataclass(slots=True)
class Batch:
    """One batch of examples, as a task makes it and a model reads it. Tasks may fill it with NumPy arrays.

    - `inputs`: tokens (B, T) or vectors (B, T, F); `mask`: (B, T), true where valid (None: all valid).
    - `targets`: (B, T) for `lm`, `masked` and `reconstruct`, (B,) for `classify` and `retrieve`, (B, U) for `seq2seq`.
    - `counted`: like `targets`, true where the target counts in loss and metric (None: all count).
    - `inputs2`, `mask2`: the second document for `retrieve`.
    - `decoder_inputs`: (B, U) for `seq2seq`, the targets shifted right behind a start token.

    What a model is given in training and scoring has drawn zeros and ones in the place of `targets` and `counted`.
    """

    inputs: Any
    targets: Any = None
    mask: Any = None
    counted: Any = None
    inputs2: Any = None
    mask2: Any = None
    decoder_inputs: Any = None

    def arrays(self) -> dict[str, Any]:
        """The fields that are set, by name, in declaration order."""
        pairs = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {name: value for name, value in pairs if value is not None}

    def tensors(self, device: torch.device | str | None = None) -> Batch:
        """The same batch as torch tensors on `device`."""
        import torch

        return Batch(**{name: torch.as_tensor(value).to(device) for name, value in self.arrays().items()})

    def __len__(self) -> int:
        return len(self.inputs)

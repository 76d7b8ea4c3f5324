"""What a check works on (tiny models of one architecture) and what it hands back."""

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from zoo import architectures
from zoo.contract import ROLES, Batch, Model, Role, Shape, State, Unsupported
from zoo.types import LABELLED, STEPWISE

T, U = 17, 5
"""Steps of a sequence, odd; and of a decoded one."""
LONG = 101
"""Steps of a long one: beyond chunks of 16, 32 and 64 steps and windows of 64, and no multiple of any."""
VOCAB, CLASSES = 11, 3


class Subject:
    """One architecture under its options, and tiny models of it."""

    def __init__(self, name: str, options: dict[str, Any] | None = None) -> None:
        self.name, self.options = name, options or {}
        self.recipe = architectures.recipe(name, **self.options)
        multiple = self.recipe.width_multiple
        self.depth = max(2, len(self.recipe.mixers))
        self.width = multiple * max(2, math.ceil(16 / multiple))
        self._kept: dict[tuple[Any, ...], tuple[Model, Tensor]] = {}

    @cached_property
    def length(self) -> int:
        """The length models are built for: T, or more where an option needs it (Linformer's k, say)."""
        for length in (T, 4 * T, 16 * T):
            try:
                self._build("classify", length, {})
            except Unsupported:
                return length
            except ValueError:
                continue
            return length
        return T

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        """The roles it can play."""
        return tuple(role for role in ROLES if self._plays(role))

    def _plays(self, role: Role) -> bool:
        try:
            self.initial(role)
        except Unsupported:
            return False
        return True

    def build(self, role: Role, *, seed: int = 0, **changes: Any) -> Model:
        """The model as initialised, in float32 and for evaluation. `changes` replace sizes of its `Shape`."""
        length = self.length
        torch.manual_seed(seed)
        return self._build(role, length, changes).eval()

    def _build(self, role: Role, length: int, changes: dict[str, Any]) -> Model:
        outputs = CLASSES if role in LABELLED else VOCAB
        sizes = {"length": length, "outputs": outputs, "vocab": VOCAB, "width": self.width, "depth": self.depth}
        return zoo.build(self.name, role, shape=Shape(**{**sizes, "target_length": U, **changes}), **self.options)

    def initial(self, role: Role) -> Model:
        """`build(role)`, made once: for those who do not change it."""
        return self._once((role,), lambda: self.build(role))

    def random(self, role: Role, *, seed: int = 0, steps: int = 0, dtype: torch.dtype = torch.float64) -> Model:
        """For `steps` or more, N(0, 1/fan_in) added to every parameter, N(0, 0.1) to vectors; made once as well."""
        length = self.length if steps <= self.length else max(steps, LONG)

        def make() -> Model:
            model = self.build(role, seed=seed, length=length).double()
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(torch.randn_like(p), alpha=p[0].numel() ** -0.5 if p.dim() > 1 else 0.1**0.5)
            return model.to(dtype)

        return self._once((role, seed, length, dtype), make)

    def _once(self, key: tuple[Any, ...], make: Callable[[], Model]) -> Model:
        """A model kept under this key; the generator goes on as it did when that was made."""
        if key not in self._kept:
            self._kept[key] = make(), torch.get_rng_state()
        model, generator = self._kept[key]
        torch.set_rng_state(generator)
        return model

    @property
    def encoder(self) -> Role | None:
        """The role in which the backbone looks both ways, if it has one."""
        return next((role for role in LABELLED if role in self.roles), None)

    @property
    def backbones(self) -> tuple[Role, ...]:
        """A role for each backbone it has: causal, and looking both ways."""
        return tuple(role for role in ("lm", self.encoder) if role is not None and role in self.roles)

    @property
    def stacks(self) -> tuple[Role, ...]:
        """`backbones`, and `seq2seq` where that is a make of its own, an encoder and a decoder."""
        own = "seq2seq" in self.roles and (self.recipe.cross is not None or not self.backbones)
        return (*self.backbones, "seq2seq") if own else self.backbones

    def vectors(self, batch: int = 3, steps: int = T) -> Tensor:
        return torch.randn(batch, steps, self.width, dtype=torch.float64)


def tokens(batch: int = 3, steps: int = T) -> Tensor:
    return torch.randint(VOCAB, (batch, steps))


def example(role: Role, batch: int = 3, steps: int = T) -> Batch:
    """A batch a model of this role can read, with targets."""
    if role in STEPWISE:
        return Batch(inputs=tokens(batch, steps), targets=tokens(batch, steps))
    if role == "seq2seq":
        return Batch(inputs=tokens(batch, steps), decoder_inputs=tokens(batch, U), targets=tokens(batch, U))
    labels = torch.randint(CLASSES, (batch,))
    second = tokens(batch, steps) if role == "retrieve" else None
    return Batch(inputs=tokens(batch, steps), targets=labels, inputs2=second)


def loss(logits: Tensor, batch: Batch) -> Tensor:
    targets = batch.targets if batch.counted is None else batch.targets.masked_fill(~batch.counted, -100)
    return nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


def gradients(model: Model, scalar: Tensor) -> list[Tensor]:
    """Of every parameter that is trained; zero where none arrives."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(scalar, parameters, allow_unused=True)
    return [torch.zeros_like(p) if grad is None else grad for p, grad in zip(parameters, found, strict=True)]


def distance(a: Tensor, b: Tensor) -> float:
    """max |a − b| / max(1, max |b|); infinite where the shapes differ, or where one is NaN (`max` would lose a NaN)."""
    if a.shape != b.shape:
        return math.inf
    a, b = a.detach().double(), b.detach().double()
    if not a.numel():
        return 0.0
    scale = b.nan_to_num(0, 0, 0).abs().max().clamp(min=1)
    worst = float((a - b).masked_fill(a == b, 0).abs().max() / scale)
    return math.inf if math.isnan(worst) else worst


def distances(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest distance between two tensors in one place."""
    return max((distance(x, y) for x, y in zip(a, b, strict=True)), default=0.0)


def named(state: State, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in a state under its path."""
    for name, value in state.items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        else:
            yield from named(value, f"{prefix}{name}.")


def state_distance(a: State, b: State) -> float:
    """The largest distance between two tensors of one name; infinite where the names differ."""
    left, right = dict(named(a)), dict(named(b))
    if left.keys() != right.keys():
        return math.inf
    return distances(list(left.values()), [right[name] for name in left])

"""What a task is: data in splits, a loss, a metric, and baselines that show when a score means nothing."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from tasks.draws import Draws
from zoo.types import BadInput, Batch, Role, Shape

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.tokenizers import Tokenizer

Split: TypeAlias = Literal["train", "tune", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Ids: TypeAlias = NDArray[np.int64]
Totals: TypeAlias = "dict[str, tuple[float, float]]"
"""Per metric a sum and the weight it is to be divided by, so that batches of any size add up to the same score."""


class DataError(BadInput):
    """The data is absent, damaged or not what it should be."""


@dataclass(frozen=True, slots=True)
class Metric:
    """The number a board ranks by."""

    name: str
    higher_is_better: bool
    chance: float
    """What guessing gives, in the metric's own unit."""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A score without training, on the same examples as the models'."""

    name: str
    value: float
    about: str


@dataclass(frozen=True, slots=True)
class Difficulty:
    """A named setting of a task, with the budget and the size of model for which it is meant."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task that differ from their defaults."""
    stop: Mapping[str, float] = field(default_factory=lambda: {"tokens": 1_000_000})
    """Where training ends: one of tokens, steps, flops, seconds."""
    params: int = 200_000
    """Parameters without embeddings and head."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Options for every architecture that has them, such as depth, heads, channel."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Keys of a suite's `train`, such as lr, batch_tokens."""

    def under(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Its options with the user's `own` on top; where these bring data by `path`, no corpus is named."""
        return {**{key: value for key, value in self.options.items() if key != "corpus" or "path" not in own}, **own}


def difficulty(
    options: Mapping[str, Any],
    params: int,
    *,
    lr: float,
    batch_tokens: int,
    train: Mapping[str, Any] | None = None,
    tokens: float | None = None,
    steps: float | None = None,
    **model: Any,
) -> Difficulty:
    """A `Difficulty` whose training ends after `tokens` or `steps`; further keywords are options of the model."""
    stop = {name: end for name, end in (("tokens", tokens), ("steps", steps)) if end is not None}
    return Difficulty(options, stop, params, model, {"lr": lr, "batch_tokens": batch_tokens, **(train or {})})


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a sequence-to-sequence model writes its answers, where a task scores them and not only the next token."""

    start: int
    """The target token that `decoder_inputs` begins with."""
    stop: int
    """The target token that ends an answer."""
    longest: int
    """Tokens after which an answer is cut off, the stop token included."""
    beam: int = 1
    """Hypotheses kept at every step; 1 is greedy."""


class Task(ABC):
    """One question asked of an architecture.

    A subclass states `role`, `shape`, `metric` and `fingerprint`, how many examples a split has, and how to make the
    examples with given ids. `batch` is then a pure function of its arguments: same bytes on every machine, in any
    order. An option that cannot be is refused by `__init__` with a ValueError.
    """

    name: ClassVar[str]
    role: ClassVar[Role]
    difficulties: ClassVar[Mapping[str, Difficulty]] = {}
    """`smoke` runs in seconds, `small` separates architectures in minutes, `paper` is the published setting."""
    shape: Shape
    """Inputs and outputs asked of a model; width and depth are the suite's affair.

    `length` is the longest input of any split. Examples are padded to one length per split, whatever their company.
    """
    fingerprint: str
    """Identifies the data: content hash and every option that changes an example. Cheap: the data is not loaded."""
    metric: Metric
    also: tuple[str, ...] = ()
    """Names of other scores that a board shows beside the one it ranks by."""
    decoding: Decoding | None = None
    """For role `seq2seq` only: answers are written by the model, and `decoded` scores them."""
    options: Mapping[str, Any]
    """What the task was built with; `tasks.build` sets it."""
    tokenizer: Tokenizer | None = None
    """Text into the tokens of the inputs, where these are text: a model trained on them can then be given any."""

    @cached_property
    def train_length(self) -> int:
        """Steps of a training input, padding included, by which a batch's tokens are counted."""
        return self.shape.length

    @abstractmethod
    def count(self, split: Split) -> int | None:
        """Examples in a split; None for a generator that never repeats."""

    @abstractmethod
    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        """The examples with these ids, as NumPy arrays. `seed` may matter in `train` only."""

    @abstractmethod
    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Heuristics scored on the test examples that `evaluation("test", limit=limit)` gives, in the metric's unit."""

    def stretched(self, multiple: int) -> Task:
        """The same task with inputs `multiple` times as long, for tests of length extrapolation.

        Raises:
            ValueError: the task cannot be longer than it is.
        """
        length = getattr(self, "length", None)
        if not isinstance(length, int):
            raise ValueError(f"{self.name} has one length only: it cannot be tested at others")
        return self._with(length=multiple * length)

    def _with(self, **changes: Any) -> Task:
        """The same task under other options."""
        options = {**self.options, **changes}
        other = type(self)(**options)
        other.options = options
        return other

    def batch(self, split: Split, index: int, seed: int = 0, *, size: int = 32) -> Batch:
        """Batch number `index` of a split, as tensors. Training walks through shuffled epochs, other splits wrap."""
        return self.examples(split, self._ids(split, index, seed, size), seed).tensors()

    def evaluation(self, split: Split, *, size: int = 32, limit: int | None = None) -> Iterator[Batch]:
        """Every example of a split once, in order; at most `limit` of them, evenly spaced."""
        ids = self.evaluation_ids(split, limit)
        for start in range(0, len(ids), size):
            yield self.examples(split, ids[start : start + size], 0).tensors()

    def evaluation_ids(self, split: Split, limit: int | None) -> Ids:
        """The ids `evaluation` walks over."""
        total = self.count(split)
        if total is None:
            if limit is None:
                raise ValueError(f"task {self.name!r} never ends in split {split!r}: give a limit")
            return np.arange(limit, dtype=np.int64)
        if limit is None or limit >= total:
            return np.arange(total, dtype=np.int64)
        return (np.arange(limit, dtype=np.int64) * total) // limit

    def _ids(self, split: Split, index: int, seed: int, size: int) -> Ids:
        total = self.count(split)
        places = np.arange(index * size, (index + 1) * size, dtype=np.int64)
        if total is None:
            return places
        if split != "train":
            return places % total
        return in_epochs(self.name, seed, places, total)

    def loss(self, logits: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy over the targets that count, in nats; of `label_smoothing` ε each class gets ε/V."""
        from torch.nn.functional import cross_entropy

        targets = batch.targets if batch.counted is None else batch.targets.masked_fill(~batch.counted, -100)
        return cross_entropy(logits.float().flatten(0, -2), targets.flatten(), label_smoothing=label_smoothing)

    def totals(self, logits: Tensor, batch: Batch) -> Totals:
        """Sums and weights for every metric of the task on one batch."""
        from torch.nn.functional import cross_entropy

        counted = batch.counted if batch.counted is not None else batch.targets == batch.targets
        nats = cross_entropy(logits.float().flatten(0, -2), batch.targets.flatten(), reduction="none").double()
        weight = float(counted.sum())
        right = (logits.argmax(-1) == batch.targets) & counted
        return {
            "loss": (float(nats.masked_fill(~counted.flatten(), 0).sum()), weight),
            "accuracy": (float(right.sum()), weight),
        }

    def decoded(self, answers: Sequence[Sequence[int]], batch: Batch) -> Totals:
        """Sums and weights for what the model wrote, without start and stop tokens, for each example of a batch."""
        raise NotImplementedError(f"{self.name} does not score written answers")

    def scores(self, totals: Totals) -> dict[str, float]:
        """Sums divided by weights; a score that is no such quotient is made here, of sums that add up."""
        return scores(totals)


def in_epochs(name: str, seed: int, places: Ids, total: int) -> Ids:
    """The examples at these places (N,) of a training that walks through `total` examples, shuffled in each epoch."""
    epochs, ids = places // total, np.empty_like(places)
    for epoch in np.unique(epochs).tolist():
        ids[epochs == epoch] = _shuffled(name, seed, epoch, total)[places[epochs == epoch] % total]
    return ids


@lru_cache(maxsize=8)
def _shuffled(name: str, seed: int, epoch: int, total: int) -> Ids:
    return Draws(name, "epoch", seed).permutation(np.array([epoch]), total)[0]


def scores(totals: Totals) -> dict[str, float]:
    """Sums divided by weights; NaN where nothing was counted."""
    return {name: value / weight if weight else math.nan for name, (value, weight) in totals.items()}


def add_totals(first: Totals, second: Totals) -> Totals:
    """Totals of two batches together."""
    both = dict(first)
    for name, (value, weight) in second.items():
        before, weighed = both.get(name, (0.0, 0.0))
        both[name] = (before + value, weighed + weight)
    return both


def fingerprint(name: str, version: int, **parts: object) -> str:
    """`name/version key=value ...`. `version` goes up when the same options come to give other examples."""
    return " ".join([f"{name}/{version}", *(f"{key}={value}" for key, value in sorted(parts.items()))])


def whole(task: str, option: str, value: object, low: int = 1) -> int:
    """`value`, if it is a whole number of at least `low`.

    Raises:
        ValueError: it is not; the message names the task and the option.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{task}: {option} must be a whole number of at least {low}, got {value!r}")
    return value

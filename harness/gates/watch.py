"""Watches a run while it trains and is scored: cheap, off the clock where it can be, and saved with it.

Nothing may change the parameters between one step and the optimiser's update in the next. At every step torch's own
count of in-place changes tells, and at one in twenty, drawn from the system's randomness so that nothing can foresee
them, a sum over all their bits.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.gates.float64 import copied
from harness.gates.hidden import Inventory, bits, inventory, saved
from harness.gates.question import training_flops
from harness.records.stream_hash import extend_hash, hash_examples
from tasks.parts import split
from zoo.contract import Batch, Model

EVERY = 0.05
"""Of the steps, sampled."""
FIRST = 4
"""Steps that are always sampled."""
KEPT = 1 << 25
"""Most numbers in the logits of a batch that is kept of those that the record's scores were made of."""
HASHES = 1 << 23
"""Most training examples whose hashes are kept; of more, a part chosen by the hash itself."""
Loss = Callable[[Tensor, Batch], Tensor]


class Watch:
    """Watches one run: `before_step` and `after_step` go around each step, `scoring` around each evaluation."""

    def __init__(
        self,
        model: Model,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        autocast: Callable[[], Any],
        *,
        parts: int = 1,
        trained: Model | None = None,
    ) -> None:
        self.model, self.optimizer, self.loss, self.autocast = model, optimizer, loss, autocast
        self.parts = parts
        """In which a whole batch goes through the model, on all devices."""
        self.trained = trained or model
        """What steps are made of: the model, or its shards."""
        self.draw = random.SystemRandom()
        self.parameters = list(self.trained.parameters())
        self._plain = [] if self.trained is not model else self.parameters
        """Those that nobody may hang hooks on; of shards, torch does."""
        self.steps = self.tokens = self.updates = 0
        self.start = 0
        """The sum over the bits of what the first step found: parameters and saved buffers."""
        self.violations: dict[str, int] = {}
        self.digests: dict[int, str] = {}
        self.hashes: list[np.ndarray] = []
        self.kept, self.shift = 0, 0
        self.flops: list[int] = []
        self.count_at = {self.draw.randrange(8**k, 8 ** (k + 1)) for k in range(1, 14)}
        self.longest_step = 0.0
        self.before: Inventory = inventory(model)
        self.after = self.before
        self._known: Inventory = {}
        self.names = {name: tuple(p.shape) for name, p in model.named_parameters()}
        self.test_hashes: list[np.ndarray] = []
        self._kept: dict[int, list[tuple[Batch, Tensor]]] = {}
        self._seen: dict[int, int] = {}
        self.malformed = ""
        self.fraction = 1.0
        """Of their peak, at which learning rates must stand in the next update."""
        self.seconds = 0.0
        """Of all steps, by this watch's own clock."""
        self._settings = _settings(optimizer)
        self._sum: int | None = None
        self._version = self._given = 0
        optimizer.register_step_pre_hook(self._updating)
        optimizer.register_step_post_hook(self._updated)
        self._hooks = [
            self.trained.register_forward_pre_hook(self._goes_forward),
            self.trained.register_forward_hook(self._went_forward),
        ]
        self._in_step = self._sampled = False
        self._given_batch: Batch | None = None
        self._in_parts = False
        self._digest_taken = self._digest_given = ""
        self._gradients: list[Any] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Watch:
        """A copy of the model, whose hooks lead here, is watched by the same."""
        return self

    def before_step(self, batch: Batch, examples: np.ndarray) -> None:
        """Before a step on `batch`, whose `examples` have these hashes; off the clock."""
        if not self.steps:
            self.start = bits(saved(self.model).values())
            self._draw()
        elif self._versions() != self._version:
            self._violated("parameters changed between steps")
            self._draw()
        if self.steps in self.count_at:
            self.flops.append(self.count_flops(copied(self.model), batch))  # so that nothing is left of it
        self._batch = self._part = batch
        self._marks_taken, self._given_batch = _marks(batch), None
        self._in_parts, self._gradients = False, [None] * len(self.parameters)
        if self._sampled:
            self.digests[self.steps], self._digest_taken = extend_hash("", batch), _unanswered(batch)
        self._keep_hashes(examples)
        self.tokens += batch.inputs.shape[0] * batch.inputs.shape[1]
        self._given, self._in_step = self.updates, True
        self._began = time.perf_counter()

    def before_part(self, batch: Batch) -> None:
        """Before the forward pass on a part of the step's batch, and after the backward pass of the part before."""
        if self._in_parts:
            self._check_given()
        self._in_parts, self._part, self._given_batch = True, batch, None
        self._gradients = self._gradient_marks()
        if self._sampled:
            self._digest_taken = _unanswered(batch)

    def after_step(self, seconds: float) -> None:
        """After a step that took so long, off the clock."""
        self._in_step = False
        self.seconds += time.perf_counter() - self._began
        self._check_batch(self._batch, self._marks_taken, self.digests.get(self.steps, ""))
        if self.updates - self._given != 1:
            self._violated("several updates in a step")
        self.longest_step = max(self.longest_step, seconds)
        self.steps += 1
        if not self._known:  # what was loaded for the first step, such as a library with arrays of its own
            self._known = {name: part for name, part in inventory(self.model).items() if part.kind == "shared"}
            self.before = self._known | self.before
        self._draw()

    def _goes_forward(self, _: Model, given: tuple[Batch]) -> None:
        if self._in_step and self._given_batch is None:
            self._given_batch, self._marks_given = given[0], _marks(given[0])
            if self._sampled:
                self._digest_given = extend_hash("", given[0].tensors("cpu"))
                if _unanswered(given[0]) != self._digest_taken:
                    self._violated("a batch was changed by the model")

    def _went_forward(self, _: Model, given: tuple[Batch], logits: Any) -> None:
        if not self._in_step:
            return
        if self._gradient_marks() != self._gradients:
            self._violated("gradients were there before the backward pass")
        self.malformed = self.malformed or misshapen(logits, self._part, self.model.shape.outputs)

    def _gradient_marks(self) -> list[Any]:
        """Which gradients there are, and how often each was changed."""
        return [None if p.grad is None else (id(p.grad), p.grad._version) for p in self.parameters]

    def _updating(self, *_: Any) -> None:
        if not self._in_step:
            self._violated("an update outside of training steps")
            return
        if self._versions() != self._version or (self._sum is not None and self._bits() != self._sum):
            self._violated("parameters or moments changed before the update of a step")
        if _settings(self.optimizer) != self._settings or not self._at_rate():
            self._violated("settings of the optimizer changed")
        if any(p._backward_hooks or p._post_accumulate_grad_hooks for p in self._plain):
            self._violated("hooks on the gradients of parameters")
        self._check_given()

    def _at_rate(self) -> bool:
        return all(group["lr"] == group["peak"] * self.fraction for group in self.optimizer.param_groups)

    def _check_given(self) -> None:
        if self._given_batch is None:
            self._violated("a forward pass past the model's hooks")
        else:
            self._check_batch(self._given_batch, self._marks_given, self._digest_given)

    def _check_batch(self, batch: Batch, marks: dict[str, tuple[int, int]], digest: str) -> None:
        """A batch holds the tensors it held, unchanged; at sampled steps, the numbers of the batch that was taken."""
        other = self._sampled and extend_hash("", batch.tensors("cpu")) != digest
        if other or _marks(batch) != marks:
            self._violated("a batch was changed by the model")

    def _updated(self, *_: Any) -> None:
        self.updates += 1

    def _violated(self, what: str) -> None:
        self.violations[what] = self.violations.get(what, 0) + 1

    def _versions(self) -> int:
        """How often the parameters and their moments were changed in place, by torch's own count."""
        moments = (value for state in self.optimizer.state.values() for value in state.values())
        return sum(tensor._version for tensor in (*self.parameters, *moments) if isinstance(tensor, Tensor))

    def _bits(self) -> int:
        """The sum over the bits of the parameters, of shards those that are here."""
        parameters: Any = self.parameters
        return bits(parameters if self.trained is self.model else (p.to_local() for p in parameters))

    def _draw(self) -> None:
        """Draw whether the next step is sampled, and remember the parameters as it must find them."""
        self._sampled = self.steps < FIRST or self.draw.random() < EVERY
        self._remember()

    def _remember(self) -> None:
        """Remember the parameters' count of changes and, of a sampled step, the sum over their bits."""
        self._version, self._sum = self._versions(), self._bits() if self._sampled else None

    def count_flops(self, model: Model, batch: Batch) -> int:
        """FLOPs of a step as it is now."""
        there, found = self.parameters[0].device, 0
        for part, _ in split(batch, self.parts):
            found += training_flops(model, part.tensors(there), self.loss, self.autocast())
        return found

    def _keep_hashes(self, found: np.ndarray) -> None:
        if self.shift:
            found = found[found >> np.uint64(64 - self.shift) == 0]
        self.hashes.append(found)
        self.kept += len(found)
        if self.kept > HASHES:
            self.shift += 1
            whole = np.concatenate(self.hashes)
            self.hashes = [whole[whole >> np.uint64(64 - self.shift) == 0]]
            self.kept = len(self.hashes[0])

    @contextmanager
    def scoring(self, split: str) -> Iterator[Callable[[bool, Batch, Tensor], None]]:
        """Around an evaluation: gives what each batch and its logits are shown to."""
        before, parts = self._bits(), _digest(self.model) if split == "test" else None

        def see(changed: bool, batch: Batch, logits: Tensor) -> None:
            if changed:
                self._violated("a batch was changed while it was scored")
            self.malformed = self.malformed or ill_formed(logits, batch, self.model.shape.outputs)
            if split == "test":
                self.test_hashes.append(hash_examples(batch.tensors("cpu")))
                self._keep_scored(batch, logits)

        if split == "test":
            self.test_hashes, self._kept, self._seen = [], {}, {}
        yield see
        if self._bits() != before or (parts is not None and parts != _digest(self.model)):
            self._violated("scoring changed the model")
        self._remember()

    def _keep_scored(self, batch: Batch, logits: Tensor) -> None:
        """Keep two batches of each length, each as likely as any other (Vitter 1985, algorithm R)."""
        if type(logits) is not Tensor or logits.numel() > KEPT:
            return
        kept = self._kept.setdefault(batch.inputs.shape[1], [])
        seen = self._seen[batch.inputs.shape[1]] = self._seen.get(batch.inputs.shape[1], 0) + 1
        place = len(kept) if len(kept) < 2 else self.draw.randrange(seen)
        if place < 2:
            kept[place : place + 1] = [(batch, logits.detach().clone())]

    @property
    def scored(self) -> list[tuple[Batch, Tensor]]:
        """Batches of test, with the logits that the record's scores were made of."""
        return [pair for pairs in self._kept.values() for pair in pairs]

    def join(self, others: Sequence[dict[str, int]]) -> None:
        """Count the violations that any rank has seen."""
        self.violations = {name: max(other.get(name, 0) for other in others) for name in set().union(*others)}

    def close(self) -> None:
        """After the last step: nothing is looked at any more."""
        for hook in self._hooks:
            hook.remove()
        self.after = inventory(self.model)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        keys = ("start", "steps", "tokens", "updates", "violations", "digests", "flops", "shift", "longest_step")
        kept = {key: getattr(self, key) for key in (*keys, "seconds")}
        hashes = np.concatenate(self.hashes) if self.hashes else np.zeros(0, dtype=np.uint64)
        return kept | {"hashes": torch.from_numpy(hashes.view(np.int64).copy())}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint, whose model was just loaded."""
        for key, value in state.items():
            setattr(self, key, value)
        self.hashes = [state["hashes"].cpu().numpy().view(np.uint64)]
        self.kept = len(self.hashes[0])
        self._draw()


def _settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Everything that an optimizer is told, by group, but the learning rates of the moment."""
    return [
        {name: [id(p) for p in value] if name == "params" else value for name, value in group.items() if name != "lr"}
        for group in optimizer.param_groups
    ]


def _unanswered(batch: Batch) -> str:
    """A hash of what a batch asks."""
    return extend_hash("", replace(batch, targets=None, counted=None).tensors("cpu"))


def _marks(batch: Batch) -> dict[str, tuple[int, int]]:
    """Which tensors a batch holds, and how often each was changed."""
    return {name: (id(value), value._version) for name, value in batch.arrays().items()}


def _digest(model: Model) -> dict[str, int]:
    """A sum for each tensor of the model, whether it is declared or not."""
    return {name: part.sum for name, part in inventory(model).items()}


def misshapen(logits: Any, batch: Batch, outputs: int) -> str:
    """Why these are no tensor of the form that a role promises; empty where they are."""
    if type(logits) is not Tensor:
        return f"a {type(logits).__name__}, not a plain tensor"
    want = (*batch.targets.shape, outputs)
    if tuple(logits.shape) != want:
        return f"logits of shape {tuple(logits.shape)}, where {want} are promised"
    return "" if logits.is_floating_point() else f"logits of type {logits.dtype}"


def ill_formed(logits: Any, batch: Batch, outputs: int) -> str:
    """Why these are not the logits that a role promises; empty where they are."""
    if wrong := misshapen(logits, batch, outputs):
        return wrong
    counted = logits if batch.counted is None else logits[batch.counted]
    return "" if math.isfinite(float(counted.detach().abs().sum(dtype=torch.float64))) else "logits that are not finite"

"""What is measured: an architecture, or a peer's implementation of it, at one length, batch and precision."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import zoo
from zoo import architectures
from zoo.registry import load_plugin
from zoo.types import LABELLED, Batch, Role, Shape

VOCAB = 256
CLASSES = 256


@dataclass(frozen=True)
class Subject:
    """A model to build and the batch it is measured on. Pickles, so that its own process can build it."""

    name: str
    """Of a registered architecture, or with `peer` of what the peer implements."""
    length: int
    batch: int
    precision: str
    role: Role = "lm"
    width: int = 256
    depth: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    peer: str | None = None
    """The name of a peer in `harness.bench.peers`."""
    params: int = 0
    """How many a peer should have."""
    hidden: int = 0
    """A peer's feed-forward units; 0 for what its package calls for."""

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.length * self.batch

    @property
    def layers(self) -> int:
        """The given depth, or the architecture's own."""
        depth = self.depth or architectures.recipe(self.name).depth
        assert depth is not None
        return depth

    def build(self, device: torch.device | str) -> nn.Module:
        """The model, a module from Batch to logits, with random weights.

        Raises:
            zoo.Unsupported, ValueError, TypeError: it cannot be built so.
        """
        if self.peer is not None:
            from harness.bench import peers

            return peers.PEERS[self.peer].build(self).to(device)
        for plugin in self.plugins:
            load_plugin(plugin)
        shape = Shape(length=self.length, vocab=VOCAB, outputs=CLASSES, width=self.width, depth=self.depth)
        with torch.device(device):
            return zoo.build(self.name, self.role, shape=shape, **self.options)

    def example(self, rows: int | None = None) -> Batch:
        """A batch of random tokens and targets, of `rows` sequences or the subject's own number."""
        generator = torch.Generator().manual_seed(0)
        rows = self.batch if rows is None else rows
        inputs = torch.randint(VOCAB, (rows, self.length), generator=generator)
        answers = (rows,) if self.role in LABELLED else (rows, self.length)
        targets = torch.randint(CLASSES, answers, generator=generator)
        return Batch(inputs=inputs, targets=targets)


def loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy in nats."""
    return cross_entropy(logits.float().flatten(0, -2), batch.targets.flatten())

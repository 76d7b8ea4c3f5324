"""Images as sequences of patches: where MLP-Mixer, vision transformers and sequence models meet."""

from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tasks.base import Baseline, DataError, Ids, Metric, Split, Task, difficulty, fingerprint, in_epochs, whole
from tasks.baselines import classifiers
from tasks.draws import Draws
from tasks.images import sets
from tasks.images.patches import check, cut
from tasks.images.pixels import FITTED
from tasks.registry import register
from zoo.types import Batch, Shape

PAD = 4
"""Pixels by which training images are shifted at most, as is usual for CIFAR-10 (He et al. 2015, section 4.2)."""


@register(
    paper="Tolstikhin et al. 2021, MLP-Mixer: An all-MLP Architecture for Vision, arXiv:2105.01601; "
    "Dosovitskiy et al. 2020, An Image is Worth 16x16 Words, arXiv:2010.11929",
    source="https://github.com/huggingface/pytorch-image-models (timm/data/transforms_factory.py)",
    deviations=(
        "training images are shifted and flipped by our own draws: timm's augmentation draws from global generators",
        "trained from scratch on small sets, not on ImageNet",
    ),
)
class Images(Task):
    """Name what an image shows that is read patch after patch.

    Each image goes once through `timm.data.create_transform(size, is_training=False, crop_pct=1)`: resized (bicubic)
    until its shorter side is `size`, and cropped in the centre. Then it is cut: inputs (B, T, F) float32, T =
    (size / patch)² patches in raster order of F = patch² · C numbers (pixels in raster order, channels last), C = 1
    for gray sets and 3 for colour; x in [0, 1] becomes (x − ½) / ½. targets (B,) int64. Splits: see `sets`.

    `augment="crop_flip"` changes training images only: each is padded by 4 black pixels, cropped back at a random
    place, and, unless the set is MNIST or in its format, mirrored half the time. Decided by seed and place in training.

    Args:
        corpus: mnist_5k or cifar10. path: a folder, see `sets.of_folder`. size: side, in pixels; by default 28.
        patch: side of a patch. augment: none or crop_flip.

    Raises:
        DataError: the data is not here or damaged, or timm is not installed.
    """

    role = "classify"
    difficulties: ClassVar = {
        "smoke": difficulty({"patch": 4}, 50_000, tokens=150_000, lr=3e-3, batch_tokens=1568, depth=2),
        "small": difficulty(
            {"patch": 2, "augment": "crop_flip"}, 200_000, tokens=4_000_000, lr=2e-3, batch_tokens=6272, depth=4
        ),
        "paper": difficulty(
            {"corpus": "cifar10", "size": 32, "augment": "crop_flip"},
            5_000_000,
            tokens=640_000_000,
            lr=1e-3,
            batch_tokens=8192,
            depth=8,
        ),
    }

    def __init__(
        self,
        *,
        corpus: str = "mnist_5k",
        path: str | None = None,
        size: int = 28,
        patch: int = 4,
        augment: str = "none",
    ) -> None:
        self.size = whole("images", "size", size, 2)
        self.patch = check("images", size, patch, "the size")
        if augment not in ("none", "crop_flip"):
            raise ValueError(f"images: augment must be none or crop_flip, got {augment!r}")
        self.augment = augment == "crop_flip"
        self.source = sets.named("images", corpus, path)
        self.metric = Metric("accuracy", higher_is_better=True, chance=1 / self.source.classes)
        features = patch**2 * self.source.channels
        self.shape = Shape(length=(size // patch) ** 2, features=features, outputs=self.source.classes)
        parts = {"size": size, "patch": patch, "augment": self.augment}
        self.fingerprint = fingerprint("images", 1, content=self.source.hash, **parts)

    def count(self, split: Split) -> int | None:
        """None in training with augmentation, as no image comes twice."""
        return None if split == "train" and self.augment else self.source.count(split)

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        """With augmentation, `ids` are places in training: epoch after epoch, each in an order of its own."""
        content, images = self.source.read(), _transformed(self.source, self.size)
        start, total = content.borders[split][0], self.source.count(split)
        if split != "train" or not self.augment:
            places, chosen = start + ids, images[start + ids]
        else:
            places = start + in_epochs(self.name, seed, ids, total)
            chosen = self._augmented(images[places], ids, seed)
        inputs = cut((chosen / 127.5 - 1).astype(np.float32), self.patch)
        return Batch(inputs=inputs, targets=content.labels[places])

    def _augmented(self, images: NDArray[np.uint8], ids: Ids, seed: int) -> NDArray[np.uint8]:
        draws = Draws("images", "augment", seed).integers(ids, 3, 0, 2 * (2 * PAD + 1))
        if self.source.layout not in ("mnist_5k", "idx"):
            mirrored = draws[:, 2] % 2 == 1
            images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        padded = np.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))
        rows = draws[:, :1] // 2 + np.arange(self.size)
        columns = draws[:, 1:2] // 2 + np.arange(self.size)
        return padded[np.arange(len(ids))[:, None, None], rows[:, :, None], columns[:, None, :]]

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Classifiers that know nothing of order, trained on at most 5,000 training images, not augmented."""
        content, images = self.source.read(), _transformed(self.source, self.size)
        total, step = self.source.count("train"), -(-self.size // 32)
        train = np.arange(min(FITTED, total)) * total // min(FITTED, total)
        test = content.borders["test"][0] + self.evaluation_ids("test", limit)
        x, z = (images[places, ::step, ::step].reshape(len(places), -1) / 127.5 - 1 for places in (train, test))
        y, answers = content.labels[train], content.labels[test]
        told = "pixels" if step == 1 else f"every {step}th pixel of every {step}th row"
        nearest = f"class of the nearest image, by {told}"
        return classifiers(x, y, z, answers, told=told, nearest=nearest)


@lru_cache(maxsize=2)
def _transformed(source: sets.ImageSet, size: int) -> NDArray[np.uint8]:
    """Every image of a set, through timm's evaluation transform: (N, size, size, C)."""
    try:
        from PIL import Image
        from timm.data import create_transform  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise DataError(f"images needs timm and torchvision ({error}): pip install 'zoobench[vision]'") from error
    images, channels = source.read().images, source.channels
    transform = create_transform(
        (channels, size, size), is_training=False, crop_pct=1.0, interpolation="bicubic", normalize=False
    )
    out = np.empty((len(images), size, size, channels), dtype=np.uint8)
    for i, image in enumerate(images):
        out[i] = transform(Image.fromarray(image)).numpy().transpose(1, 2, 0)
    return out

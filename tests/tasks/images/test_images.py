"""Images by patch: timm's transform leaves what is of the right size alone; augmentation shifts and mirrors."""

import numpy as np
import pytest

import tasks
from tasks.images import sets
from zoo.types import Batch


@pytest.fixture(scope="module")
def originals() -> np.ndarray:
    pytest.importorskip("timm")
    return sets.named("images", "mnist_5k", None).read().images


def whole_images(batch, size: int) -> np.ndarray:
    """Patches put together again, as bytes."""
    n = round(batch.inputs.shape[1] ** 0.5)
    cells = batch.inputs.reshape(len(batch), n, n, size // n, size // n).transpose(0, 1, 3, 2, 4)
    return np.rint((cells.reshape(len(batch), size, size) + 1) * 127.5).astype(np.uint8)


def test_patches_hold_the_image(originals):
    batch = tasks.build("images").examples("train", np.arange(5), 0)
    assert batch.inputs.shape == (5, 49, 16)
    np.testing.assert_array_equal(whole_images(batch, 28), originals[:5])


def test_resizing_keeps_the_mean(originals):
    batch = tasks.build("images", size=14, patch=2).examples("train", np.arange(50), 0)
    np.testing.assert_allclose(whole_images(batch, 14).mean(axis=(1, 2)), originals[:50].mean(axis=(1, 2)), rtol=0.1)


def test_augmentation_shifts_by_at_most_four_and_does_not_mirror_digits(originals):
    task = tasks.build("images", augment="crop_flip")
    ids = np.arange(200)
    batch = task.examples("train", ids, 3)
    plain = tasks.build("images").batch("train", 0, 3, size=200)
    np.testing.assert_array_equal(batch.targets, plain.targets.numpy())
    shifts = set()
    for got, original in zip(
        whole_images(batch, 28),
        whole_images(Batch(inputs=plain.inputs.numpy(), targets=plain.targets.numpy()), 28),
        strict=True,
    ):
        padded = np.pad(original, 4)
        shifts |= {next((y, x) for y in range(9) for x in range(9) if (padded[y : y + 28, x : x + 28] == got).all())}
    assert len(shifts) > 60
    later = task.examples("train", ids + 3500, 3)
    assert (later.inputs != batch.inputs).any()
    assert task.count("train") is None

"""Digits as sequences: patches, pooling, splits."""

import numpy as np
import pytest

import tasks
from tasks.images import sets
from tasks.images.pixels import MEAN, STD


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return sets.named("pixels", "mnist_5k", None).read().images.reshape(-1, 784)


def pixels(**options) -> np.ndarray:
    """The first training image, back in [0, 1], (T, F)."""
    return tasks.build("pixels", **options).examples("train", np.arange(1), 0).inputs[0] * STD + MEAN


def test_pixels_are_in_raster_order(images):
    np.testing.assert_allclose(pixels()[:, 0], images[0] / 255, atol=1e-6)


def test_patches_are_in_raster_order_inside_and_out(images):
    image = images[0].reshape(28, 28) / 255
    patches = pixels(patch=7)
    np.testing.assert_allclose(patches[4 * 2 + 1].reshape(7, 7), image[14:21, 7:14], atol=1e-6)


def test_pooling_is_the_mean(images):
    image = images[0].reshape(28, 28) / 255
    pooled = pixels(pool=4)[:, 0].reshape(7, 7)
    np.testing.assert_allclose(pooled[3, 4], image[12:16, 16:20].mean(), atol=1e-6)
    np.testing.assert_allclose(pixels(pool=2, patch=7)[2, 0], image[14:16, 0:2].mean(), atol=1e-6)


@pytest.mark.parametrize(("name", "options"), [("pixels", {"pool": 4}), ("images", {"size": 14, "patch": 2})])
def test_baselines(images, name, options):
    if name == "images":
        pytest.importorskip("timm")
    values = {b.name: b.value for b in tasks.build(name, **options).baselines(limit=200)}
    assert values["majority"] < 0.2
    assert values["logistic"] > 0.8
    assert values["neighbour"] > 0.8

"""Pathfinder: solvable by following dashes, and by nothing simpler; the same pixels on every machine."""

import numpy as np
import pytest
from scipy import ndimage

import tasks
from tasks.images.pathfinder import dot_distances


def solved(image: np.ndarray, bridge: float) -> int:
    """Whether flood fill leads from dot to dot, over lit points at most `bridge` pixels apart.

    Pixels are split in 4 × 4, so that half the gap can be filled from either side; a dot is what is at full brightness.
    """
    fine = np.kron(image, np.ones((4, 4), dtype=np.uint8))
    reached = ndimage.distance_transform_edt(fine < 10) <= 2 * bridge
    parts, _ = ndimage.label(reached, structure=np.ones((3, 3)))
    dots, _ = ndimage.label(fine == 255)
    sizes = np.bincount(dots.ravel())[1:]
    first, second = (parts[dots == 1 + k][0] for k in np.argsort(-sizes)[:2])
    return int(first == second)


@pytest.mark.parametrize(
    ("side", "bridge", "right"), [(64, 1.0, 0.72), pytest.param(128, 4.0, 0.8, marks=pytest.mark.with_all)]
)
def test_flood_fill_over_the_gaps_answers(side, bridge, right):
    """It knows nothing of good continuation, so it errs where contours pass each other; yet far above chance."""
    images, labels = tasks.build("pathfinder", side=side).images("test", np.arange(20), 0)
    assert np.mean([solved(image, bridge) for image in images] == labels) > right


def test_labels_are_balanced_and_the_dots_alone_differ():
    task = tasks.build("pathfinder")
    images, labels = task.images("train", np.arange(800), 3)
    assert (labels[::2] + labels[1::2] == 1).all()
    assert abs(labels[::2].mean() - 0.5) < 0.08
    lit = (images > 0).mean(axis=(1, 2))
    spread = lit.std() * np.sqrt(4 / len(lit))
    assert abs(lit[labels == 0].mean() - lit[labels == 1].mean()) < 3 * spread
    distances = dot_distances(images)
    spread = distances.std() * np.sqrt(4 / len(distances))
    assert abs(distances[labels == 0].mean() - distances[labels == 1].mean()) < 3 * spread
    assert distances.min() > 4
    assert distances.std() > 4


@pytest.mark.with_all
def test_baselines_stay_at_chance():
    for baseline in tasks.build("pathfinder").baselines(limit=1000):
        assert abs(baseline.value - 0.5) < 0.05, baseline


def test_inputs_are_the_pixels():
    task = tasks.build("pathfinder", patch=4)
    images, labels = task.images("valid", np.arange(3), 0)
    batch = task.examples("valid", np.arange(3), 0)
    assert (batch.inputs.shape, batch.inputs.dtype) == ((3, 64, 16), np.float32)
    np.testing.assert_allclose(batch.inputs[1, 8 + 2].reshape(4, 4), images[1, 4:8, 8:12] / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(batch.targets, labels)


@pytest.mark.parametrize("contour", [4, 6, 9])
def test_shorter_contours_light_less(contour):
    images, _ = tasks.build("pathfinder", contour=contour).images("test", np.arange(50), 0)
    longest, _ = tasks.build("pathfinder").images("test", np.arange(50), 0)
    assert 0.04 < (images > 0).mean() < (longest > 0).mean()

"""Pathfinder: are two dots on one dashed path?"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tasks.base import Baseline, Ids, Metric, Split, difficulty, whole
from tasks.baselines import accuracy, commonest, logistic_regression
from tasks.generated import Generated
from tasks.images.patches import check, cut
from tasks.registry import register
from zoo.types import Batch, Shape


@dataclass(frozen=True, slots=True)
class Look:
    """How images of one side are drawn, in sixteenths of a pixel."""

    length: int
    gaps: tuple[int, ...]
    """Between one dash's end and the next one's start; each image draws one."""
    half: int
    """Half the thickness of a dash; dashes have round ends."""
    radius: int
    seed: int
    """Distance between the first ends of the two long contours."""
    continuity: float
    dashes: int
    """Of all distractors together."""
    peak: int


LOOKS = {
    32: Look(length=26, gaps=(38,), half=7, radius=24, seed=7 * 16, continuity=1.0, dashes=20, peak=191),
    64: Look(length=56, gaps=(40,), half=8, radius=40, seed=12 * 16, continuity=1.8, dashes=22, peak=204),
    128: Look(length=80, gaps=(64, 96), half=12, radius=48, seed=20 * 16, continuity=1.8, dashes=35, peak=229),
}


@register(
    paper="Linsley et al. 2018, Learning Long-Range Spatial Dependencies with Horizontal Gated Recurrent Units, "
    "arXiv:1805.08315; as a sequence: Tay et al. 2020, Long Range Arena, arXiv:2011.04006, section 2.2",
    source="https://github.com/drewlinsley/pathfinder (snakes2.py), with the settings of "
    "https://github.com/google-research/long-range-arena (lra_benchmarks/data/pathfinder.py)",
    deviations=(
        "a generator of our own after the official one's structure: scores do not compare with published ones",
        "both labels' dots are equally far apart (to a pixel), which the official generator does not see to",
        "dashes have one of 64 directions, round ends and 4 × 4 points per pixel; shorter ones at side 64",
        "training examples never repeat, where LRA has 160,000 of them (`examples=160000` does so)",
    ),
)
class Pathfinder(Generated):
    """Are two dots the ends of one dashed path?

    Two contours of `contour` dashes wind through an image among short ones of a third as many. One dot stands on an
    end of a long contour, the other on its other end (label 1) or on an end of the other one (label 0). Dashes follow
    each other with turns δ, p(δ) ∝ cos² min(c·|δ|, π/2); no two others are closer than dashes that follow each other.
    The image without dots does not depend on the label, nor does the distance between dots, up to a pixel that is as
    often more as less.

    inputs (B, (S/patch)², patch²) float32: gray pixels in raster order, (x − ½) / ½ for x in [0, 1]; targets (B,).
    Examples 2i and 2i + 1 have different labels. Examples of different splits are drawn under different keys; the
    contours are so many that they differ.

    Args:
        side: S: 32, 64 or 128 (LRA's Pathfinder, its 64-pixel form, and Path-X).
        contour: dashes of a long contour, 4 to 14; LRA's easy, intermediate and hard sets have 6, 9 and 14.
        patch: side of a patch, in pixels. examples: a finite training set, the same for every seed.
    """

    role = "classify"
    metric = Metric("accuracy", higher_is_better=True, chance=0.5)
    difficulties: ClassVar = {
        "smoke": difficulty({"contour": 6, "patch": 4}, 50_000, tokens=150_000, lr=2e-3, batch_tokens=2048, depth=2),
        "small": difficulty({"contour": 6, "patch": 2}, 200_000, tokens=5_000_000, lr=1e-3, batch_tokens=8192, depth=4),
        "paper": difficulty(
            {"examples": 160_000}, 600_000, steps=62_400, lr=1e-3, batch_tokens=524_288, depth=4, heads=8
        ),
    }

    def __init__(self, *, side: int = 32, contour: int = 14, patch: int = 1, examples: int | None = None) -> None:
        if side not in LOOKS:
            raise ValueError(f"pathfinder: side must be 32, 64 or 128, got {side!r}")
        self.side, self.look = side, LOOKS[side]
        self.contour = whole("pathfinder", "contour", contour, 4)
        if contour > 14:
            raise ValueError(f"pathfinder: contour must be at most 14 dashes, which is what fits, got {contour}")
        self.patch = check("pathfinder", side, patch)
        self.shape = Shape(length=(side // patch) ** 2, features=patch**2, outputs=2)
        self._keep(side=side, contour=contour, patch=patch, examples=examples)

    def images(self, split: Split, ids: Ids, seed: int) -> tuple[NDArray[np.uint8], Ids]:
        """Images (B, S, S) and labels (B,)."""
        from tasks.images import contours

        draws, look, distractor = self.draws(split, seed), self.look, self.contour // 3
        first = draws("label").integers(ids // 2, 1, 0, 2)[:, 0]
        labels = first ^ (ids % 2)
        seeds = draws("contours").bits(ids, 1)[:, 0]
        border = 16 + look.half
        sizes = np.array([(look.length, gap, look.half, gap - look.half, border) for gap in look.gaps], dtype=np.int64)
        tried = look.dashes // distractor
        plan = contours.Plan(self.contour, look.seed, look.radius, contours.UNIT, tried, distractor, look.peak)
        return contours.draw(seeds, labels, sizes, plan, look.continuity, self.side), labels

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        drawn, labels = self.images(split, np.asarray(ids, dtype=np.int64), seed)
        return Batch(inputs=cut((drawn / 127.5 - 1).astype(np.float32), self.patch), targets=labels)

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Guesses that follow no path, fitted on 2,000 training examples."""
        images, labels = self.images("train", np.arange(2000), 0)
        seen, asked = self.images("test", self.evaluation_ids("test", limit), 0)
        x, z = (i.reshape(len(i), -1) / 255.0 for i in (images, seen))
        d, e = dot_distances(images), dot_distances(seen)
        regression = logistic_regression(x, labels, z)
        # The threshold and direction that are right most often on the training examples
        borders = np.quantile(d, np.linspace(0, 1, 65))
        right = np.array([((d > border) == labels).mean() for border in borders])
        best = int(np.abs(right - 0.5).argmax())
        answers = (e > borders[best]) == (right[best] >= 0.5)
        return [
            accuracy("majority", commonest(labels), asked, "the training examples' commonest label"),
            accuracy("logistic", regression, asked, "softmax regression on pixels, L2 0.01"),
            accuracy("distance", answers, asked, "a threshold on the distance between the dots"),
        ]


def dot_distances(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How far the two dots of each image stand apart, in pixels: (N, S, S) -> (N,)."""
    from scipy.ndimage import center_of_mass, label

    distances = np.empty(len(images))
    for n, image in enumerate(images):
        parts, _ = label(image == 255, structure=np.ones((3, 3)))
        sizes = np.bincount(parts.ravel())[1:]
        dots = 1 + np.argsort(-sizes, kind="stable")[:2]
        (y0, x0), (y1, x1) = center_of_mass(image == 255, parts, dots)
        distances[n] = np.hypot(y0 - y1, x0 - x1)
    return distances

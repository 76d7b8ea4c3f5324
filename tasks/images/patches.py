"""Images as sequences of patches."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.base import whole

Number = TypeVar("Number", bound=np.generic)


def check(task: str, side: int, patch: int, left: str = "the images' side") -> int:
    """`patch`, if it divides `side` into at least 2 × 2 patches.

    Raises:
        ValueError: it does not. `left` says what `side` is.
    """
    if side % whole(task, "patch", patch) or patch == side:
        raise ValueError(f"{task}: patch must divide {side} (and be less), {left}; got {patch}")
    return patch


def cut(images: NDArray[Number], patch: int) -> NDArray[Number]:
    """Patches in raster order, of pixels in raster order: (N, S, S) -> (N, (S/p)², p²), (N, S, S, C) -> (…, p²·C)."""
    N, side = images.shape[:2]
    n = side // patch
    cells = images.reshape(N, n, patch, n, patch, -1).transpose(0, 1, 3, 2, 4, 5)
    return cells.reshape(N, n * n, -1)

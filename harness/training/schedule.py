"""The learning rate as a function of how far a run is."""

import math


def schedule(kind: str, progress: float, *, warmup: float, final: float) -> float:
    """The learning rate over its peak: linear warm-up, then `cosine` or `linear` down to `final`, or `constant`.

    `inverse_sqrt` falls as √(warm-up / steps) after the warm-up (Vaswani et al. 2017, section 5.3), wherever that ends.
    """
    if warmup and progress < warmup:
        return progress / warmup
    if kind == "constant":
        return 1.0
    if kind == "inverse_sqrt":
        return math.sqrt(max(warmup, 1e-3) / max(progress, 1e-3)) if progress > warmup else 1.0
    left = 1.0 - (progress - warmup) / max(1e-12, 1.0 - warmup)
    shape = left if kind == "linear" else 0.5 * (1.0 - math.cos(math.pi * left))
    return final + (1.0 - final) * shape

"""TODO lru."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.lru import LRU
from zoo.types import Part, Recipe


@register(
    family="state spaces and long convolutions",
    paper="Orvieto et al. 2023, Resurrecting Recurrent Neural Networks for Long Sequences, arXiv:2303.06349",
    source="https://github.com/NicolasZucchet/minimal-LRU (lru/model.py; the paper's own code is not public)",
    deviations=(
        "LayerNorm before the layer, where the paper's experiments use batch normalisation; no dropout inside it",
        "GELU by its tanh approximation, the default of flax; gelu=erf is the exact one",
        "λ starts off the origin and the unit circle by 1e-7, where nu_log and gamma_log would be infinite",
    ),
)
def lru(
    *,
    d_hidden: int = 128,
    r_min: float = 0.0,
    r_max: float = 1.0,
    max_phase: float = 6.28,
    gelu: Literal["tanh", "erf"] = "tanh",
) -> Recipe:
    """LRU: a complex diagonal linear recurrence, stable by its parametrisation and normalised, then GELU and a GLU."""
    mixer = Part(LRU, d_hidden=d_hidden, r_min=r_min, r_max=r_max, max_phase=max_phase, gelu=gelu)
    return Recipe(mixer=mixer, channel=None, residual="pre", norm="layer", positions="none")

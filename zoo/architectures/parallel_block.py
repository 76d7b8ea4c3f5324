"""Parallel blocks: attention and MLP side by side (Wang and Komatsuzaki 2021; Chowdhery et al. 2022, section 2).

    x ← x + f(LN(x)) + g(LN(x)),    f = attention,    g = MLP

Both read the same norm.
"""

from zoo.architectures import register
from zoo.architectures.pre_ln import pre_ln
from zoo.layers.attention import Attention
from zoo.types import Recipe


@register(
    options=Attention,
    family="transformers",
    paper="Wang and Komatsuzaki 2021, GPT-J-6B; Chowdhery et al. 2022, PaLM, arXiv:2204.02311, section 2",
    source="https://github.com/kingoflolz/mesh-transformer-jax (mesh_transformer/layers.py)",
    deviations=(
        "rotary positions and missing biases of GPT-J are left out",
        "positions, GELU, biases and initialisation are pre_ln's: the two differ in the residual type only",
    ),
)
def parallel_block(**options: object) -> Recipe:
    """Attention and MLP side by side under one norm, x + f(LN(x)) + g(LN(x))."""
    return pre_ln(**options).replace(residual="parallel")

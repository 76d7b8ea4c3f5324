"""TODO synthesizer."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.synthesizer import Synthesizer
from zoo.types import Part, Recipe


@register(
    family="efficient attention",
    paper="Tay et al. 2021, Synthesizer: Rethinking Self-Attention for Transformer Models, arXiv:2005.00743",
    source="https://github.com/tensorflow/mesh (mesh_tensorflow/transformer/attention.py, synthetic_attention)",
    deviations=(
        "dense: W_1 gives each head its d hidden units and W_2 is one for all heads, as in both official codes; the "
        "paper writes a layer of D hidden units for each head",
        "the code of long-range-arena reshapes dense scores without transposing heads and time, which mixes the two; "
        "we follow mesh and the paper",
        "projections have biases, as in long-range-arena; mesh has none",
        "factorized_dense is in neither official code: every pair of entries of A and B gives a score, as the paper's "
        "text asks for, which its two plain tilings would not; the length need not be a multiple of b",
        "a dot product mixed in is scaled by 1/sqrt(d); mesh folds that into the initial queries",
        "residual type, GELU and initialisation (but for the tables, Glorot's as in mesh) are pre_ln's",
    ),
)
def synthesizer(
    *,
    heads: int = 4,
    variant: Literal["dense", "factorized_dense", "random", "factorized_random"] = "dense",
    dot: Literal["none", "plus", "alpha"] = "none",
    rank: int = 32,
    learned: bool = True,
) -> Recipe:
    """Transformer whose attention scores come from each step alone, or from a table, without dot products."""
    return Recipe(
        mixer=Part(Synthesizer, heads=heads, variant=variant, dot=dot, rank=rank, learned=learned),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )

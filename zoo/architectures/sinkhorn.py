"""TODO sinkhorn."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.sinkhorn import Sinkhorn
from zoo.types import Part, Recipe


@register(
    family="efficient attention",
    paper="Tay et al. 2020, Sparse Sinkhorn Attention, arXiv:2002.11296",
    source="https://github.com/lucidrains/sinkhorn-transformer (the authors published no code of this model)",
    deviations=(
        "scores pass log(relu(R) + 1e-6) before balancing, as in lucidrains; the paper balances exp(R)",
        "values of the sorted block are sorted values (paper); lucidrains 0.11.4 puts the sorted keys in their place",
        "Gumbel noise in training only; lucidrains draws it when evaluating too",
        "sort_net='simple' is the paper's network, here relu of one linear map of the summed queries and keys of a "
        "block (lucidrains); 'attention', parameter-free and lucidrains' default, is the alternative",
        "blocks of padding take no part in the sorting",
        "not causal: column sums over the blocks of a sequence let the future in; no SortCut, no local heads",
        "blocks of 16 tokens (paper); lucidrains has 64",
        "residual type, GELU and initialisation (but for the sorting network) are pre_ln's",
    ),
)
def sinkhorn(
    *,
    heads: int = 4,
    block_size: int = 16,
    sort_net: Literal["simple", "attention"] = "simple",
    temperature: float = 0.75,
    iterations: int = 5,
) -> Recipe:
    """Transformer whose blocks of tokens see themselves and one that a learned soft permutation brings; not causal."""
    return Recipe(
        mixer=Part(
            Sinkhorn,
            heads=heads,
            block_size=block_size,
            sort_net=sort_net,
            temperature=temperature,
            iterations=iterations,
        ),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )

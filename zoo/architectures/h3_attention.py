"""The hybrid of H3 and attention that the paper's language models are (Fu, Dao et al. 2023, section 5).

    x ← x + f(LN(x)),    x ← x + MLP(LN(x))
    f = attention in the second of each four blocks,    else f(x) = (q ⊙ SSM_diag(SSM_shift(k) ⊙ v)) W_out

`zoo.architectures.h3` has q, k, v and the two state-space models.
"""

from zoo.architectures import register
from zoo.architectures.h3 import H3
from zoo.layers.attention import Attention
from zoo.types import Part, Recipe


@register(
    family="hybrids",
    paper="Fu, Dao et al. 2023, Hungry Hungry Hippos: Towards Language Modeling with State Space Models, "
    "arXiv:2212.14052",
    source="https://github.com/HazyResearch/H3 (src/models/ssm_seq.py, attn_layer_idx)",
    deviations=(
        "the paper has two attention layers in 12 or more, the second and the one in the middle; here one in four is "
        "attention, so that a stack of four has the second",
        "no positions at all, as in the official hybrid; initialisation of the attention layers is pre_ln's",
    ),
)
def h3_attention(*, heads: int = 4, d_state: int = 64) -> Recipe:
    """H3 with attention in one layer of four."""
    h3, attention = Part(H3, d_state=d_state), Part(Attention, heads=heads)
    return Recipe((h3, attention, h3, h3))

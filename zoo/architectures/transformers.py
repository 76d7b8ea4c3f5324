"""Transformers that differ in where the LayerNorm stands."""

from zoo.registry import register
from zoo.terms import Part, Recipe


@register(
    paper="Xiong et al. 2020, On Layer Normalization in the Transformer Architecture, arXiv:2002.04745",
    source="https://github.com/openai/gpt-2 (src/model.py)",
    deviations=(
        "GELU is exact (erf), where GPT-2 uses the tanh approximation",
        "weights start at N(0, 1/fan_in), not GPT-2's N(0, 0.02), from which small widths do not learn",
        "the output head is not tied to the token table unless `tie` says so",
    ),
)
def pre_ln(*, heads: int = 4) -> Recipe:
    """Transformer with LayerNorm inside the residual branch, x + f(LN(x)), and one more LayerNorm at the end."""
    return Recipe(mixer=Part("attention", heads=heads), wiring="pre", positions="learned", width_multiple=heads)


@register(
    paper="Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762, section 3.1",
    source="https://github.com/tensorflow/tensor2tensor (transformer.py, layer_postprocess_sequence='dan')",
    deviations=(
        "differs from pre_ln in the place of the LayerNorm only: learned positions, GELU and initialisation are "
        "pre_ln's, so that the two isolate that question",
    ),
)
def post_ln(*, heads: int = 4) -> Recipe:
    """Transformer with LayerNorm after the residual sum, LN(x + f(x)), and no LayerNorm at the end."""
    return pre_ln(heads=heads).replace(wiring="post")

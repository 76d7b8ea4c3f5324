"""GPT-2: a Pre-LN transformer whose output head is the token table (Radford et al. 2019, section 2.3).

    h_t = W_e[u_t] + W_p[t],    h ← h + f(LN(h)),    f = attention, then MLP
    logits = LN(h) W_eᵀ

W_e is the table of tokens, W_p that of positions.
"""

from zoo.architectures import register
from zoo.layers.attention import Attention
from zoo.types import Part, Recipe


@register(
    options=Attention,
    family="transformers",
    paper="Radford et al. 2019, Language Models are Unsupervised Multitask Learners (GPT-2), section 2.3",
    source="https://github.com/openai/gpt-2 (src/model.py)",
    deviations=(
        "weights start at N(0, 1/fan_in), not at N(0, 0.02), from which small widths do not learn; projections into "
        "the residual stream are scaled by 1/√(2·depth), as the paper's text has it and the released code does not",
        "no dropout unless `dropout` says so (GPT-2 trained with 0.1)",
    ),
)
def gpt2(**options: object) -> Recipe:
    """GPT-2: Pre-LN with learned positions, tanh GELU and an output head tied to the token table."""
    return Recipe(
        Part(Attention, **options),
        channel=Part("mlp", activation="gelu_tanh"),
        residual="pre",
        positions="learned",
        tie=True,
    )

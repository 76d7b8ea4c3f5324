"""Griffin: two recurrent blocks with the RG-LRU, then one of local attention, repeated (De et al. 2024, section 2).

    x ← x + f(RMSNorm(x)),    x ← x + GeGLU(RMSNorm(x)),    f = recurrence, recurrence, attention, by turns
    recurrence    h_t = a_t ⊙ h_{t−1} + √(1 − a_t²) ⊙ i_t ⊙ u_t,    y_t = (h_t ⊙ GELU(x_t W_y)) W_out
    attention    y_t = Σ_{t − w < s ≤ t} softmax_s(q_t·k_s / √d) v_s

`zoo.architectures.rg_lru` has the gates a and i, and u.
"""

from zoo.architectures import register
from zoo.architectures.rg_lru import HAWK_AND_GRIFFIN, RecurrentBlock
from zoo.layers.local_attention import LocalAttention
from zoo.types import Part, Recipe


@register(
    family="hybrids",
    paper="De et al. 2024, Griffin: Mixing Gated Linear Recurrences with Local Attention for Efficient Language "
    "Models, arXiv:2402.19427",
    source="https://github.com/google-deepmind/recurrentgemma (recurrentgemma/torch/layers.py, modules.py)",
    deviations=(
        *HAWK_AND_GRIFFIN,
        "the window is 64 steps, or a shorter length, by default; the paper has 1024, RecurrentGemma 2048",
        "a window of w holds the step itself and w - 1 before it, as in transformers; DeepMind's code has one more",
        "attention and MLP start their last projection at 1/√(2·depth·fan_in), the official code at twice that",
    ),
)
def griffin(
    *,
    heads: int = 4,
    window: int | None = None,
    lru_width: int | None = None,
    d_conv: int = 4,
    cap_logits: bool = False,
) -> Recipe:
    """Griffin: two blocks of the RG-LRU, then one of local multi-query attention, each with a gated GELU MLP.

    With `cap_logits` a logit y is 30 tanh(y / 30) (RecurrentGemma).
    """
    recurrent = Part(RecurrentBlock, heads=heads, lru_width=lru_width, d_conv=d_conv)
    local = Part(LocalAttention, heads=heads, window=window, kv_heads=1, bias=False)
    return Recipe(
        (recurrent, recurrent, local),
        channel=Part("glu", activation="gelu_tanh", expand=3.0, bias=True),
        residual="pre",
        norm="rms_one",
        positions=Part("rope", fraction=0.5),
        head="capped" if cap_logits else "linear",
        width_multiple=4 * heads,  # half of each head turns, in pairs
    )

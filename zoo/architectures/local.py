"""Sliding-window attention in a Pre-LN transformer: each query sees the w nearest keys only (Mistral 7B, section 2).

    x ← x + f(LN(x)),    f = attention, then MLP
    y_t = Σ_{t − w < s ≤ t} softmax_s(q_t·k_s / √d) v_s

per head of width d. An encoder looks to both sides: `zoo.layers.local_attention` is the layer.
"""

from zoo.architectures import register
from zoo.layers.local_attention import LocalAttention
from zoo.types import Part, Recipe


@register(
    options=LocalAttention,
    family="efficient attention",
    paper="Jiang et al. 2023, Mistral 7B, arXiv:2310.06825, section 2 (sliding window attention)",
    source="https://github.com/mistralai/mistral-src (one_file_ref.py); transformers, models/mistral",
    deviations=(
        "blocks, biases, learned positions and initialisation are pre_ln's, so that the two isolate the window; "
        "Mistral's are RMSNorm, SwiGLU and rotary positions, without biases (positions='rope' has those)",
        "the window is 64 by default, or the whole length where that is less; Mistral's is 4096",
        "as an encoder, which Mistral is not, window // 2 keys on each side besides the query itself",
        "as many heads of keys and values as of queries by default, where Mistral shares each among four",
    ),
)
def local(**options: object) -> Recipe:
    """Transformer with sliding-window attention: each position sees itself and the window − 1 before it."""
    return Recipe(Part(LocalAttention, **options), residual="pre", positions="learned")

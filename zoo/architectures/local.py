"""TODO local."""

from zoo.architectures import register
from zoo.layers.local_attention import LocalAttention
from zoo.types import Part, Recipe


@register(
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
def local(*, heads: int = 4, kv_heads: int | None = None, window: int | None = None) -> Recipe:
    """Transformer with sliding-window attention: each position sees itself and the window − 1 before it."""
    return Recipe(
        mixer=Part(LocalAttention, heads=heads, kv_heads=kv_heads, window=window),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )

"""Grouped-query attention in a Transformer++ (Ainslie et al. 2023, arXiv:2305.13245, section 2.2).

    head_h = softmax(Q_h K_gᵀ / √d) V_g,    g = ⌈h G / H⌉,    y = concat(head_1, ..., head_H) W_O

H heads of queries share G heads of keys and values, each among H / G neighbours, so that a cache holds G / H of what it
would. G = 1 is multi-query attention (Shazeer 2019, arXiv:1911.02150). All else is as in Llama.
"""

from typing import Any

from zoo.architectures import register
from zoo.architectures.transformer_pp import transformer_pp
from zoo.layers.attention import Attention
from zoo.types import Recipe


@register(
    options=Attention,
    family="transformers",
    paper="Ainslie et al. 2023, GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints, "
    "arXiv:2305.13245, section 2.2",
    source="https://github.com/meta-llama/llama (llama/model.py, n_kv_heads)",
    deviations=(
        "heads of keys and values are trained from the start, where the paper averages those of a trained model",
        "blocks are those of transformer_pp, with its deviations; the paper's model is T5",
    ),
)
def gqa(*, heads: int = 4, kv_heads: int = 2, **options: Any) -> Recipe:
    """Transformer++ whose query heads share heads of keys and values, two each: half of the cache."""
    return transformer_pp(heads=heads, kv_heads=kv_heads, **options)

"""Hybrids that both the zoo and transformers have: their configs, and their weights under our names.

Some weights are kept otherwise there: one matrix for what are several of ours, or a factor of its own beside a matrix.
"""

from collections.abc import Mapping

from zoo.published.transformers.hybrids import (
    falcon_h1,
    jamba,
    kimi_linear,
    minimax,
    nemotron_h,
    olmo_hybrid,
    qwen3_next,
    recurrent_gemma,
)
from zoo.published.transformers.hybrids.base import Hybrid

HYBRIDS: Mapping[str, Hybrid] = {
    "qwen3_next": qwen3_next.HYBRID,
    "kimi_linear": kimi_linear.HYBRID,
    "minimax": minimax.HYBRID,
    "jamba": jamba.HYBRID,
    "nemotron_h": nemotron_h.HYBRID,
    "falcon_h1": falcon_h1.HYBRID,
    "olmo_hybrid": olmo_hybrid.HYBRID,
    "recurrent_gemma": recurrent_gemma.HYBRID,
}
"""By their model_type."""

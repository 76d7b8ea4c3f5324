"""Names of the layers of a hybrid, as configs of transformers have them."""

from typing import Literal, TypeAlias

LayerType: TypeAlias = Literal["linear_attention", "full_attention"]
PATTERN: tuple[LayerType, ...] = ("linear_attention", "linear_attention", "linear_attention", "full_attention")
"""That of Qwen3-Next, Kimi Linear and OLMo Hybrid."""

"""Linear attention whose past is kept in log T states: `log_linear_attention` in chunks."""

from zoo.ops.log_linear_attention.chunked import log_linear_attention
from zoo.ops.log_linear_attention.naive import levels_of
from zoo.ops.log_linear_attention.naive import log_linear_attention as log_linear_attention_naive

__all__ = ["levels_of", "log_linear_attention", "log_linear_attention_naive"]

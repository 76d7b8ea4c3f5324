"""Linear attention and the delta rule with a past in log T states: `log_linear_*` in chunks, `*_naive` the truth."""

from zoo.ops.log_linear_attention.chunked import log_linear_attention
from zoo.ops.log_linear_attention.delta_rule import log_linear_delta_rule
from zoo.ops.log_linear_attention.naive import levels_of
from zoo.ops.log_linear_attention.naive import log_linear_attention as log_linear_attention_naive
from zoo.ops.log_linear_attention.naive import log_linear_delta_rule as log_linear_delta_rule_naive

__all__ = [
    "levels_of",
    "log_linear_attention",
    "log_linear_attention_naive",
    "log_linear_delta_rule",
    "log_linear_delta_rule_naive",
]

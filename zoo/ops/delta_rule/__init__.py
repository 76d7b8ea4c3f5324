"""Delta rules on a matrix state: `delta_rule` and `dplr` in chunks, `*_naive` the truth."""

from zoo.ops.delta_rule.chunked import delta_rule, dplr
from zoo.ops.delta_rule.naive import delta_rule_naive, dplr_naive

__all__ = ["delta_rule", "delta_rule_naive", "dplr", "dplr_naive"]

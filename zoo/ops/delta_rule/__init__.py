"""Delta rules on a matrix state: `delta_rule` and `dplr` in chunks, `*_step` step by step, `*_naive` the truth."""

from __future__ import annotations

from zoo.ops.delta_rule.chunked import delta_rule, dplr
from zoo.ops.delta_rule.naive import delta_rule_naive, delta_rule_step, dplr_naive, dplr_step

__all__ = ["delta_rule", "delta_rule_naive", "delta_rule_step", "dplr", "dplr_naive", "dplr_step"]

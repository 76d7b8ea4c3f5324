"""H3's two state-space models and two products in one: y = q ⊙ SSM_diag(SSM_shift(k) ⊙ v)."""

from zoo.ops.h3.fused import h3, serves
from zoo.ops.h3.naive import h3 as h3_naive

__all__ = ["h3", "h3_naive", "serves"]

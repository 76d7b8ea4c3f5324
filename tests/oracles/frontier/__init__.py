"""Architectures since 2024 beside flash-linear-attention."""

from . import attention, delta, gated, learners, sparse

CASES = delta.CASES | gated.CASES | learners.CASES | attention.CASES | sparse.CASES

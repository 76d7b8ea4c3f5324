"""Architectures since 2024 beside flash-linear-attention and others."""

from . import attention, delta, gated, hymba, learners, sparse

CASES = delta.CASES | gated.CASES | learners.CASES | attention.CASES | sparse.CASES

OTHERS = learners.OTHERS | hymba.OTHERS
"""Beside code elsewhere, by the name of the recording."""

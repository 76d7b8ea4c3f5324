"""Powers of a diagonal matrix against coefficients or against a sequence: the kernel and the state of S4D."""

from zoo.ops.vandermonde.factored import accumulate, evaluate
from zoo.ops.vandermonde.naive import accumulate as accumulate_naive
from zoo.ops.vandermonde.naive import evaluate as evaluate_naive

__all__ = ["accumulate", "accumulate_naive", "evaluate", "evaluate_naive"]

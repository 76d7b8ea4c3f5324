"""The public function of an op has the signature of its naive form, and both docstrings."""

import inspect

import pytest

from zoo.ops.delta_rule import delta_rule, delta_rule_naive
from zoo.ops.elementwise import naive, positive
from zoo.ops.slstm import slstm, slstm_naive


@pytest.mark.parametrize(
    ("public", "truth"), [(slstm, slstm_naive), (delta_rule, delta_rule_naive), (positive, naive.positive)]
)
def test_a_signature_is_written_out_once(public, truth):
    assert inspect.signature(public) == inspect.signature(truth)
    assert public.__doc__.startswith(inspect.getdoc(truth))
    assert public is not truth


def test_what_the_public_function_adds_stands_behind():
    assert slstm.__doc__.endswith("In float32 at least, autocast or not.")

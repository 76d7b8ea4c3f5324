"""Element by element: gates between linear layers, features that stay positive, and gates that decay."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from zoo.ops import forms
from zoo.ops.elementwise import naive
from zoo.ops.kernel_log import logged

__all__ = ["log_sigmoid", "positive", "swiglu"]

log_sigmoid, swiglu = logged("log_sigmoid")(naive.log_sigmoid), logged("swiglu")(naive.swiglu)


def positive(x: Float[Tensor, "*N F"]) -> Float[Tensor, "*N F"]:
    """See `naive.positive`."""
    return (forms.choose("positive", x) or naive.positive)(x)

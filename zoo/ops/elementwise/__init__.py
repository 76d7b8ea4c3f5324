"""Element by element: features that stay positive."""

from zoo.ops.elementwise import naive
from zoo.ops.forms import compiled

__all__ = ["positive"]

positive = compiled("positive")(naive.positive)

"""Arrays that a thread of a compiled loop works on, by name."""

from collections import namedtuple
from typing import Any

from zoo.ops.cpu.jit import called
from zoo.ops.cpu.matmul import aligned_zeros


def workspace(products: str, states: str) -> Any:
    """A function for loops, which allocates a NamedTuple of zeros: `new(sizes, like_products, like_states)`.

    It is written as text, as collections.namedtuple writes its own: numba follows no names that a loop makes up.

    Args:
        products: names of arrays in the dtype of products, by their sides, which are fields of `sizes`.
        states: those in the dtype of states.

    Example:
        >>> _work = workspace("C K: Q keys; C C: pairs", "K V: S")  # w = _work(sizes, before, S); w.Q
    """
    arrays: dict[str, str] = {}
    for like, groups in (("products", products), ("states", states)):
        for sides, names in (group.split(": ") for group in groups.split("; ")):
            size = " * ".join(f"sizes.{side}" for side in sides.split())
            arrays |= dict.fromkeys(names.split(), f"aligned_zeros({size}, {like})")
    scope: dict[str, Any] = {"aligned_zeros": aligned_zeros, "Workspace": namedtuple("Workspace", arrays)}
    exec(f"def new(sizes, products, states):\n    return Workspace({', '.join(arrays.values())})", scope)
    return called(scope["new"])

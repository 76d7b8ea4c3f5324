"""Work that the count of FLOPs does not see: on elements of tensors one by one, and outside of torch."""

import sys
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

FEW = 64
"""Numbers that a model may read out of a tensor: counts and sizes."""
LEAVING = (
    Tensor.numpy,
    Tensor.tolist,
    Tensor.data_ptr,
    Tensor.untyped_storage,
    Tensor.__array__,
    Tensor.__dlpack__,
    Tensor.storage,
    Tensor._typed_storage,
    Tensor.__reduce_ex__,
)


class Elements(TorchDispatchMode):
    """Counts the elements that operators without a formula for FLOPs read or write, the most of any one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if not func.is_view and func._overloadpacket not in flop_registry:
            values = (*args, *(found if isinstance(found, (tuple, list)) else (found,)))
            self.count += max((value.numel() for value in values if isinstance(value, Tensor)), default=0)
        return found


class Leaving(TorchFunctionMode):
    """Notes tensors that code other than torch's and the zoo's takes out of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in LEAVING and args[0].numel() > FEW and _caller() not in ("zoo", "tasks", "harness"):
            self.count += 1
        return func(*args, **(kwargs or {}))


def _caller() -> str:
    """The package, neither torch nor NumPy, whose code led to `__torch_function__`."""
    frame, home = sys._getframe(2), "torch"
    while frame is not None and home in ("torch", "numpy"):
        home = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        frame = frame.f_back  # type: ignore[assignment]
    return home

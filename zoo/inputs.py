"""What a model checks of what it is given: tokens or vectors, their mask, and the state that it continues from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.contract import Model, State

OPTIONAL = ("valid", "memory_mask")
"""Parts of a state that are there once a mask was given."""

Template = dict[str, Any]
"""A state of one row with sizes without the batch, which are 0 where they grow, and dtypes in the place of tensors."""


def check_inputs(inputs: Any, mask: Any, *, features: int | None = None, name: str = "inputs") -> None:
    """Check tokens (B, T), or vectors (B, T, features), and the mask (B, T) or None.

    Raises:
        ValueError: they have other shapes or dtypes, or no step, or lie on two devices.
    """
    if isinstance(inputs, Tensor) and features is None:
        fits = inputs.ndim == 2 and inputs.dtype in (torch.long, torch.int)
    else:
        fits = isinstance(inputs, Tensor) and inputs.is_floating_point() and inputs.shape[2:] == (features,)
    if not fits or not inputs.shape[1] or inputs.layout is not torch.strided:
        what = "tokens (B, T), as int32 or int64" if features is None else f"vectors (B, T, {features})"
        raise ValueError(f"{name}: {_described(inputs)}; this model reads {what}, of one step at least")
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.shape != inputs.shape[:2] or mask.dtype is not torch.bool:
        raise ValueError(f"mask: {_described(mask)}; beside {name} of {_described(inputs)} it is bool, of one row each")
    if mask.device != inputs.device:
        raise ValueError(f"mask: it lies on {mask.device}, and {name} on {inputs.device}")


def check_tokens(tokens: Any, vocab: int, mask: Any = None, *, name: str = "tokens") -> None:
    """As `check_inputs`; on a CPU also that tokens are below `vocab`: a GPU would have to be waited for.

    Raises:
        ValueError: they are not what the model reads.
    """
    check_inputs(tokens, mask, name=name)
    if tokens.device.type == "cpu" and tokens.numel():
        low, high = (int(x) for x in torch.aminmax(tokens))
        if low < 0 or high >= vocab:
            raise ValueError(f"{name}: tokens from {low} to {high}; this model knows those from 0 to {vocab - 1}")


def check_state(model: Model, state: Any, like: Tensor) -> None:
    """Check that `model` can continue from a state with as many rows as `like` has, on its device.

    Raises:
        ValueError: the state has other parts, shapes or dtypes, or lies elsewhere.
    """
    if model.template is None:
        model.template = _template(model.empty_state())
    _check(state, model.template, len(like), like.device, "state")


def _template(state: State) -> Template:
    return {k: (tuple(x.shape[1:]), x.dtype) if isinstance(x, Tensor) else _template(x) for k, x in state.items()}


def _check(state: Any, template: Template, rows: int, device: torch.device, path: str) -> None:
    if not isinstance(state, dict):
        raise ValueError(f"{path}: {_described(state)}, where this model has a dict of {', '.join(template)}")
    for name in () if template.keys() == state.keys() else template.keys() ^ state.keys():
        if name not in OPTIONAL:
            raise ValueError(f"{path}.{name}: {'missing' if name in template else 'of another model'}")
    steps: set[int] = set()
    for name, x in state.items():
        want = template.get(name, ((0,), torch.bool))
        if isinstance(want, dict):
            _check(x, want, rows, device, f"{path}.{name}")
        elif not (_fits(x, rows, want[0], want[1], steps) and x.device == device):
            sizes = ", ".join(str(size or "steps") for size in (rows, *want[0]))
            said = f"for these tokens it is {_name(want[1])} ({sizes}) on {device}"
            raise ValueError(f"{path}.{name}: {_described(x)}; {said}")
    if len(steps) > 1:
        raise ValueError(f"{path}: parts that grow have {' and '.join(map(str, sorted(steps)))} steps")


def _fits(x: Any, rows: int, sizes: tuple[int, ...], dtype: torch.dtype, steps: set[int]) -> bool:
    """Whether a tensor has such rows; the size that grows, if one does, is added to `steps`."""
    if not isinstance(x, Tensor) or x.dtype is not dtype or x.layout is not torch.strided:
        return False
    shape = x.shape
    if 0 in sizes:
        at = sizes.index(0)
        steps.update(size for size in shape[at + 1 : at + 2] if size)  # none where nothing has grown, or nothing can
        sizes = (*sizes[:at], *shape[at + 1 : at + 2], *sizes[at + 1 :])
    return shape == (rows, *sizes)


def _described(x: Any) -> str:
    if isinstance(x, Tensor):
        layout = "" if x.layout is torch.strided else f"{_name(x.layout)} "
        return f"{layout}{_name(x.dtype)} ({', '.join(map(str, x.shape))}) on {x.device}"
    return f"a {type(x).__name__}" if x is not None else "None"


def _name(kind: torch.dtype | torch.layout) -> str:
    return str(kind).removeprefix("torch.")

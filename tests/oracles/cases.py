"""How a recorded official layer is compared: how ours is built, and how its parameters follow from theirs."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from zoo.contract import LayerContext
from zoo.registry import options_of

Hyper = dict[str, Any]
Weights = dict[str, Tensor]


def shared(x):
    """What RWKV-7 takes from its first layer, from the second on."""
    return {"shared_context": {"v_first": x["v_first"]}} if "v_first" in x else {}


@dataclasses.dataclass(frozen=True)
class Case:
    """`make` builds ours from the recording's hyperparameters; `ours` gives our parameters from the official ones."""

    architecture: str
    make: Callable[[Hyper], nn.Module]
    ours: Callable[[Weights, nn.Module], Weights] = lambda p, _: p
    run: Callable[[Callable[..., Any], Weights, Weights], Tensor] = lambda f, x, _: f(x["input"], **shared(x))[0]
    buffers: Callable[[Weights], Weights] = lambda _: {}
    steps: str | None = None
    """The recorded outputs of the official step mode, if any."""
    state: tuple[str, bool] | None = None
    """Which state of ours the recorded last one is, and whether its last two axes are the other way round."""
    tolerance: float = 1e-9


def mixer(kind, more=lambda h: {}, **called):
    """Makes `kind` with its options of the same names, with those `called` otherwise, and with `more`."""
    own = {option.name: option.name for option in options_of(kind, skip=1)} | called

    def first(h, *names, default=None):
        return next((h[name] for name in names if h.get(name)), default)

    def make(h):
        context = LayerContext(
            width=first(h, "d_model", "n_embd", "embed_dim", "hidden_size"),
            length=first(h, "l_max", "L", "max_positions", "max_seq_len", default=128),
            causal=kind.traits.causal != "no" and h.get("causal", True) and not h.get("bidirectional"),
            layer=first(h, "layer_id", "layer_idx", default=0),
            depth=2,
        )
        return kind(context, **{name: h[there] for name, there in own.items() if there in h} | more(h))

    return make


def renamed(table):
    """By our names those that there are."""
    return lambda p, _: {mine: p[theirs] for mine, theirs in table.items() if theirs in p}


def started(**beginnings):
    """With each beginning of a name, as a pattern, replaced."""

    def rename(p, _):
        for old, new in beginnings.items():
            p = {re.sub(f"^{old}(?=[._]|$)", new, name): value for name, value in p.items()}
        return p

    return rename

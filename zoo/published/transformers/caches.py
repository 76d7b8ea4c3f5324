"""What transformers' caches hold, as tensors of a state, and caches made of such tensors again.

A cache has one part for each layer of its model: keys and values of every step (`k`, `v`), the last inputs of short
convolutions (`conv0`, …), states of recurrences (`recurrent0`, …), several of these, or nothing. MiniMax keeps its
recurrences in a list beside the layers (`linear`), xLSTM three tensors for each layer (`C`, `n`, `m`) and no layers,
and transformers before 4.54 two lists of keys and values.
"""

import copy
from collections.abc import Iterator
from typing import Any, TypeAlias

from torch import Tensor

CACHES = ("DynamicCache", "MiniMaxCache", "xLSTMCache")
LAYERS = ("DynamicLayer", "LinearAttentionLayer", "LinearAttentionAndFullAttentionLayer", "DummyLayer")
"""Classes of which is known all that a model reads again: no window, whose place in time is a number of its own."""
LISTS = ("linear_cache", "rnn_state", "key_cache", "value_cache")
"""Where caches hold tensors beside their layers."""
Tensors: TypeAlias = dict[str, dict[str, Tensor]]
"""By the number of the layer, by name."""


def tensors(cache: Any) -> Tensors:
    """The tensors of a cache; none for one of another class, or with other layers."""
    layers = getattr(cache, "layers", ())
    if type(cache).__name__ not in CACHES or any(type(layer).__name__ not in LAYERS for layer in layers):
        return {}
    found: Tensors = {}
    for layer, name, holder, key in _places(cache):
        found.setdefault(layer, {})[name] = holder[key]
    return found


def template(cache: Any) -> Any:
    """A copy of a cache that was used, whose tensors hold nothing, for `filled`."""
    made = copy.copy(cache)
    if hasattr(cache, "layers"):
        made.layers = [copy.copy(layer) for layer in cache.layers]
        for layer in made.layers:
            vars(layer).update({k: dict(v) for k, v in vars(layer).items() if isinstance(v, dict)})
    for name in LISTS:
        if name in vars(cache):
            setattr(made, name, _lists(vars(cache)[name]))
    for _, _, holder, key in _places(made):
        holder[key] = holder[key].new_empty(0)
    return made


def filled(empty: Any, state: Tensors) -> Any:
    """A cache with the tensors of a state. A model may write into all but keys and values, which are therefore copied.

    Args:
        empty: what `template` made.
    """
    made = template(empty)
    for layer, name, holder, key in _places(made):
        held = state[layer][name]
        holder[key] = held if name in "kv" else held.clone()
    return made


def _places(cache: Any) -> Iterator[tuple[str, str, Any, Any]]:
    """Where the tensors are: the number of the layer, a name, what holds the tensor and its key there."""
    for i, layer in enumerate(getattr(cache, "layers", ())):
        held = vars(layer)
        if held.get("keys") is not None:
            yield str(i), "k", held, "keys"
            yield str(i), "v", held, "values"
        for kind in ("conv", "recurrent"):
            for j, x in held.get(f"{kind}_states", {}).items():
                if x is not None:
                    yield str(i), f"{kind}{j}", held[f"{kind}_states"], j
    for i in range(len(vars(cache).get("key_cache", ()))):
        yield str(i), "k", cache.key_cache, i
        yield str(i), "v", cache.value_cache, i
    for i, x in enumerate(getattr(cache, "linear_cache", ())):
        if isinstance(x, Tensor):
            yield str(i), "linear", cache.linear_cache, i
    for i, three in getattr(cache, "rnn_state", {}).items():
        for j, name in enumerate("Cnm"):
            yield str(i), name, three, j


def _lists(held: Any) -> Any:
    """A list, or a dict of tuples as one of lists, copied."""
    return {key: list(value) for key, value in held.items()} if isinstance(held, dict) else list(held)

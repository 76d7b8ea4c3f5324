"""Configs of transformers, read as options of ours; what ours lack is refused by its name."""

from collections.abc import Mapping
from typing import Any

from zoo.published.errors import PretrainedError

LAYER_NORMS = {"layer": 1e-5, "layer_eps6": 1e-6, "layer_eps12": 1e-12}
RMS_NORMS = {"rms": 1e-6, "rms_eps5": 1e-5}
"""Our norms and their ε."""
ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "relu2": "relu2",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "swish": "silu",
}
"""Activations of transformers, and ours."""


def expect(config: Any, **expected: Any) -> None:
    """Refuse a config in which one of these is there, not None and of another value, the only one that ours has."""
    for name, only in expected.items():
        value = getattr(config, name, only)
        if value is not None and value != only:
            raise PretrainedError(f"our {config.model_type} has no {name} {value!r}; only {only!r}")


def norm(norms: Mapping[str, float], config: Any, name: str) -> str:
    """Our norm whose ε is that of a config."""
    value, known = getattr(config, name), {eps: ours for ours, eps in norms.items()}
    if value not in known:
        raise PretrainedError(f"our {config.model_type} has no {name} {value!r}; only {', '.join(map(str, known))}")
    return known[value]


def mlp(config: Any, hidden: int, name: str) -> dict[str, Any]:
    """The options of our channel mixer for a hidden width and an activation of theirs."""
    activation = getattr(config, name)
    if activation not in ACTIVATIONS:
        raise PretrainedError(f"our {config.model_type} has no {name} {activation!r}; only {', '.join(ACTIVATIONS)}")
    return {"expand": hidden / config.hidden_size, "activation": ACTIVATIONS[activation]}


def rope(config: Any) -> dict[str, Any]:
    """Our rotary positions for those of a config."""
    theirs = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = theirs.get("rope_type", theirs.get("type", "default"))
    if kind != "default":
        raise PretrainedError(f"our {config.model_type} has no rope_type {kind!r}")
    options = {"base": float(theirs.get("rope_theta", getattr(config, "rope_theta", 10000.0)))}
    fraction = theirs.get("partial_rotary_factor", 1.0)
    return {"rope": options if fraction == 1.0 else {**options, "fraction": fraction}}

"""How the hybrids of transformers are read: what their families share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from zoo.contract import Model
from zoo.published.names import Pair, renamed, to_ours
from zoo.published.transformers.configs import expect

Weights: TypeAlias = dict[str, Tensor]


def unchanged(config: Any, weights: Weights) -> None:
    """Nothing that our modules keep otherwise."""


@dataclass(frozen=True, slots=True)
class Hybrid:
    """How to read one family of transformers."""

    architecture: str
    options: Callable[[Any], dict[str, Any]]
    """Ours, by a config. Raises PretrainedError for what our modules lack."""
    names: Mapping[str, str]
    """Prefixes of our names and of theirs; see `renamed`."""
    prepare: Callable[[Any, Weights], None] = unchanged
    """Adds to their weights those that our modules have and theirs keep otherwise."""
    sublayers: int = 2
    """Of ours in a layer of theirs."""

    def weights(self, model: Model, config: Any, theirs: Mapping[str, Tensor], where: str) -> Weights:
        """Their weights under the names of our model."""
        prepared = dict(theirs)
        self.prepare(config, prepared)
        pairs = []
        for ours, name in renamed(model, self.names, sublayers=self.sublayers).items():
            parts = [name.replace(".qkv.", f".{part}_proj.") for part in "qkv"] if ".qkv." in name else [name]
            pairs.append(Pair(ours, tuple(parts)))
        return to_ours(pairs, prepared, where)


def names(block: Mapping[str, str], *, table: str = "embed_tokens", norm: str = "norm") -> dict[str, str]:
    """The prefixes of a model, from those in a block; `norm` is the one behind the last."""
    outside = {"embedding.table": f"model.{table}", "backbone.norm": f"model.{norm}", "head": "lm_head"}
    return {**outside, **{ours: f"model.layers.{{}}.{theirs}" for ours, theirs in block.items()}}


def glu(ours: str, theirs: str) -> dict[str, str]:
    """The three matrices of a gated MLP, and their biases."""
    kinds, parts = ("weight", "bias"), ("gate", "up", "down")
    return {f"{ours}.{part}.{kind}": f"{theirs}.{part}_proj.{kind}" for part in parts for kind in kinds}


def experts(theirs: str, router: str, shared: str = "") -> dict[str, str]:
    """A mixture of experts, some of which may be shared."""
    mixture = {"gate_up": "experts.gate_up_proj", "down": "experts.down_proj", "router": router, "bias": "bias"}
    together = glu("1.inner.shared", f"{theirs}.{shared}") if shared else {}
    return {**{f"1.inner.{ours}": f"{theirs}.{name}" for ours, name in mixture.items()}, **together}


ATTENTION = {"0.inner.qkv": "self_attn.qkv", "0.inner.out": "self_attn.o_proj"}
"""Where most keep attention."""


def each(weights: Weights, name: str) -> list[str]:
    """What stands before `name` in the names that end so."""
    return [key.removesuffix(name) for key in weights if f".{key}".endswith(f".{name}")]


def cut(weights: Weights, at: str, name: str, parts: Mapping[str, int], groups: int = 1) -> None:
    """The rows of a matrix as several matrices, of so many rows in each of `groups`, one behind the other."""
    split = weights[f"{at}{name}"].unflatten(0, (groups, -1)).split(list(parts.values()), dim=1)
    for part, rows in zip(parts, split, strict=True):
        weights[f"{at}{part}.weight"] = rows.flatten(0, 1)


def cut_convolution(weights: Weights, keys: int, values: int) -> None:
    """One convolution of queries, keys and values as three."""
    for at in each(weights, "conv1d.weight"):
        cut(weights, at, "conv1d.weight", {"q_conv1d": keys, "k_conv1d": keys, "v_conv1d": values})


def without_correction(weights: Weights, channel: str, router: str) -> None:
    """What balances our experts, and theirs lack, is 0."""
    for at in each(weights, f"{channel}.{router}.weight"):
        rows = weights[f"{at}{channel}.{router}.weight"]
        weights[f"{at}{channel}.bias"] = rows.new_zeros(len(rows))


def scale(weights: Weights, factors: Mapping[str, float | Tensor]) -> None:
    """Multiply the tensors whose names end so."""
    for name, factor in factors.items():
        for at in each(weights, name):
            weights[f"{at}{name}"] = factor * weights[f"{at}{name}"]


def delta(config: Any) -> dict[str, Any]:
    """Heads and sizes of Gated DeltaNet."""
    return {
        "delta_heads": config.linear_num_key_heads,
        "delta_value_heads": config.linear_num_value_heads,
        "delta_head_dim": config.linear_key_head_dim,
        "expand_v": config.linear_value_head_dim / config.linear_key_head_dim,
        "conv_size": config.linear_conv_kernel_dim,
    }


def mixture(config: Any, experts: int, *, width: int | None = None, **more: Any) -> dict[str, Any]:
    """A mixture of SwiGLUs weighed by a softmax."""
    expect(config, hidden_act="silu")
    return {
        "experts": experts,
        "top_k": config.num_experts_per_tok,
        "expand": (width or config.moe_intermediate_size) / config.hidden_size,
        "score": "softmax",
        "normalise": getattr(config, "norm_topk_prob", True),
        **more,
    }

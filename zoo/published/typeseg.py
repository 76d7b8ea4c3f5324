"""The trained language segmenter of typeseg 0.2.7 (`_mamba_kernel.py`): which of 35 languages each byte belongs to.

Its layers differ from Mamba's in five points:

- a bias on every projection, and a LayerNorm with ε = 1e-6 before the layer;
- the convolution is centred: with 4 taps a step sees one before it and two after it;
- Δ = softplus(Δ' W_Δ + b_Δ) + 1e-4;
- a second scan runs in reverse time, over the same u, Δ, B, C and with the same A and D;
- the sum of both scans is gated, so that D u enters twice.
"""

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zoo.architectures.mamba import Mamba
from zoo.blocks.heads import MaskedLanguageModel, make_head
from zoo.contract import LayerContext, Model, Part, Recipe, Role, Shape, State, Traits
from zoo.layers.tensors import reverse
from zoo.ops.precision import at_least_fp32
from zoo.ops.selective_scan import selective_scan
from zoo.published import files
from zoo.published.errors import PretrainedError, missing
from zoo.published.files import sizes_of
from zoo.published.mamba import expansion
from zoo.published.names import Pair, to_ours
from zoo.tokenizers import Bytes

NAME, FILE = "typeseg", "mamba_al.npz"
LENGTH = 1536
"""Bytes in a window of the package; the model has no limit."""
IDS = 257
"""The token ids: bytes and padding. The table has a row for each of ASCII, one for other bytes, one for padding."""
BLOCK = "CheckpointMambaBlock1D_"
INSIDE = {"in_proj": "Dense_0", "conv1d": "Conv_0", "x_proj": "Dense_1", "dt_proj": "Dense_2", "out_proj": "Dense_3"}
"""The modules of a layer and their names in Flax."""


class TiedMamba(Mamba):
    """Mamba's layer in both directions with one set of weights, as described at the top of this file.

    Args:
        floor: the smallest Δ. options: as in Mamba.
    """

    traits = Traits(causal="no", bidirectional=True, resumable=False)

    def __init__(self, context: LayerContext, *, floor: float = 1e-4, **options: Any) -> None:
        super().__init__(context, bias=True, **options)
        self.x_proj = nn.Linear(self.x_proj.in_features, self.x_proj.out_features)
        self.floor = floor

    def forward(
        self, x: Float[Tensor, "B T D"], *, mask: Bool[Tensor, "B T"] | None = None, state: State | None = None
    ) -> tuple[Float[Tensor, "B T D"], None]:
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u = self._centred(u, mask)
        delta, B, C = self.select(u)
        delta = F.softplus(at_least_fp32(delta) + at_least_fp32(self.dt_proj.bias)) + self.floor
        if mask is not None:
            delta = delta.masked_fill(~mask[..., None], 0)
        u, delta, B, C = (torch.cat([each, reverse(each, mask)]) for each in (u, delta, B, C))
        y, _ = selective_scan(at_least_fp32(u), delta, -torch.exp(at_least_fp32(self.A_log)), B, C, self.D)
        forward, backward = y.chunk(2)
        y = (forward + reverse(backward, mask)) * F.silu(at_least_fp32(z))
        return self.out_proj(y.to(x.dtype)), None

    def _centred(self, u: Float[Tensor, "B T I"], mask: Bool[Tensor, "B T"] | None) -> Float[Tensor, "B T I"]:
        """The causal convolution, shifted by half its width."""
        after = self.conv1d.kernel_size[0] // 2
        u = u if mask is None else u.masked_fill(~mask[..., None], 0)
        return self.conv1d(F.pad(u, (0, 0, 0, after)), narrow=True)[0][:, after:]


class Segmenter(MaskedLanguageModel):
    """A model from bytes (256 is padding) to logits over languages at every byte."""

    labels: tuple[str, ...] = ()
    """The languages."""

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        super().__init__(recipe, role, shape)
        self.head = make_head(recipe, shape.width, shape.outputs, bias=True)
        self.shape = dataclasses.replace(shape, vocab=IDS)

    def encode(self, inputs: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, "B T D"]:
        return super().encode(inputs.clamp(max=128) + (inputs > 255), mask)


def load(where: str = NAME) -> Model:
    """The segmenter of the installed package, with the role `masked`.

    The package replaces control characters by 0xA4 before it calls its model; this model reads every byte.
    """
    path = _packaged()
    weights = _weights(path)
    blocks = {name.split("/")[0] for name in weights if name.startswith(BLOCK)}
    rows, width = sizes_of(weights, "Embed_0/embedding", 2, path)
    classes, _ = sizes_of(weights, "Dense_0/kernel", 2, path)
    inner, d_state = sizes_of(weights, f"{BLOCK}0/A_log", 2, path)
    _, dt_rank = sizes_of(weights, f"{BLOCK}0/Dense_2/kernel", 2, path)
    _, _, d_conv = sizes_of(weights, f"{BLOCK}0/Conv_0/kernel", 3, path)
    mixer = Part(TiedMamba, d_state=d_state, d_conv=d_conv, expand=expansion(inner, width), dt_rank=dt_rank)
    recipe = Recipe(mixer=mixer, channel=None, norm="layer_eps6", depth=len(blocks))
    shape = Shape(LENGTH, classes, vocab=rows, width=width, depth=len(blocks))
    with torch.random.fork_rng(devices=[]):
        model = Segmenter(recipe, "masked", shape)
    files.fit(model, to_ours(_pairs(len(blocks)), weights, path), path)
    model.labels = tuple(json.loads(path.with_name("manifest.json").read_text(encoding="utf-8"))["labels"])
    model.tokenizer = Bytes()
    return model


def _pairs(depth: int) -> list[Pair]:
    def both(ours: str, theirs: str, weight: str = "kernel") -> list[Pair]:
        return [Pair(f"{ours}.weight", (f"{theirs}/{weight}",)), Pair(f"{ours}.bias", (f"{theirs}/bias",))]

    pairs = [Pair("embedding.table.weight", ("Embed_0/embedding",)), *both("head", "Dense_0")]
    pairs += both("backbone.norm", "LayerNorm_0", "scale")
    for i in range(depth):
        ours, theirs = f"backbone.sublayers.{i}", f"{BLOCK}{i}"
        pairs += both(f"{ours}.norm", f"{theirs}/LayerNorm_0", "scale")
        pairs += [Pair(f"{ours}.inner.{name}", (f"{theirs}/{name}",)) for name in ("A_log", "D")]
        for name, module in INSIDE.items():
            pairs += both(f"{ours}.inner.{name}", f"{theirs}/{module}")
    return pairs


def _packaged() -> Path:
    """The file of weights in the installed package, which is not imported."""
    spec = importlib.util.find_spec(NAME)
    if spec is None or not spec.submodule_search_locations:
        raise missing(NAME, "oracles", "the trained segmenter")
    path = Path(spec.submodule_search_locations[0]) / "data" / FILE
    if not path.is_file():
        raise PretrainedError(f"{path}: not there; this reads the weights of typeseg 0.2.7")
    return path


def _weights(path: Path) -> dict[str, Tensor]:
    """The tensors by their Flax names; kernels (taps,) in, out are transposed to out, in(, taps)."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name.replace("__", "/"): np.asarray(stored[name], np.float32) for name in stored.files}
    arrays = {name: value.T if name.endswith("/kernel") else value for name, value in arrays.items()}
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}

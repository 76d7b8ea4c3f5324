"""Attention to chosen keys, or along paths, as flash-linear-attention has them: how each is compared, by class."""

from zoo.architectures.deltaformer import DeltaFormer
from zoo.architectures.moba import MoBA
from zoo.architectures.nsa import NSA
from zoo.architectures.parallax import Parallax
from zoo.architectures.path import PaTH
from zoo.architectures.wall import WallAttention
from zoo.contract import LayerContext
from zoo.registry import options_of
from zoo.types import Part

from ..cases import Case, mixer

HEADS = {"heads": "num_heads", "kv_heads": "num_kv_heads"}


def rotated(kind):
    """Makes `kind` with rotary positions, which the official layers have inside."""
    names = {option.name: HEADS.get(option.name, option.name) for option in options_of(kind, skip=1)}

    def make(h):
        rope = Part("rope", base=h.get("rope_theta", 10000.0))
        context = LayerContext(h["hidden_size"], 128, depth=2, positions=rope)
        return kind(context, **{name: h[there] for name, there in names.items() if there in h})

    return make


CASES: dict[str, Case] = {
    "DeltaFormerAttention": Case("deltaformer", rotated(DeltaFormer)),
    "MoBA": Case("moba", rotated(MoBA)),
    "NativeSparseAttention": Case("nsa", rotated(NSA)),
    "PaTHAttention": Case("path", mixer(PaTH, **HEADS)),
    "Parallax": Case("parallax", rotated(Parallax)),
    "WallAttention": Case("wall", mixer(WallAttention, **HEADS)),
}

"""Attention with other logits, caches or gates, as flash-linear-attention has them: how each is compared, by class."""

from zoo.architectures.forgetting import ForgettingAttention
from zoo.architectures.mla import MultiheadLatentAttention
from zoo.architectures.yoco import YOCO
from zoo.contract import LayerContext
from zoo.registry import options_of
from zoo.types import Part

from ..cases import Case, mixer


def turning(kind, convention, **called):
    """As `mixer`, of two layers, with rotations."""
    own = {option.name: option.name for option in options_of(kind, skip=1)} | called

    def make(h):
        rope = Part("rope", convention=convention, base=h.get("rope_theta", 10000.0))
        context = LayerContext(h["hidden_size"], 128, layer=h.get("layer_idx", 0), depth=2, positions=rope)
        return kind(context, **{name: h[there] for name, there in own.items() if there in h})

    return make


HEADS = {"heads": "num_heads", "kv_heads": "num_kv_heads"}
CASES: dict[str, Case] = {
    "ForgettingAttention": Case("forgetting", mixer(ForgettingAttention, **HEADS)),
    "MultiheadLatentAttention": Case("mla", turning(MultiheadLatentAttention, "half", heads="num_heads")),
    "YOCOGatedRetention": Case(
        "yoco",
        turning(YOCO, "interleaved", heads="num_heads"),
        lambda p, _: {f"attn.{name}": value for name, value in p.items()},
        state=("S", True),
    ),
    "YOCOSharedKVBuilder, YOCOCrossAttention": Case("yoco", turning(YOCO, "interleaved", **HEADS)),
}

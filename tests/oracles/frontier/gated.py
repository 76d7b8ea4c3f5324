"""Layers with decays, slots or levels, as flash-linear-attention has them: how each is compared, by class."""

from zoo.architectures.gated_slot_attention import GatedSlotAttention
from zoo.architectures.hgrn import HGRN
from zoo.architectures.hgrn2 import HGRN2
from zoo.architectures.log_linear_mamba2 import LogLinearMamba2
from zoo.architectures.raven import Raven
from zoo.architectures.rodimus import Rodimus

from ..cases import Case, mixer

SHARED = {"heads": "num_heads", "kv_heads": "num_kv_heads"}
CASES = {
    "GatedSlotAttention": Case("gated_slot_attention", mixer(GatedSlotAttention, **SHARED)),
    "HGRN2Attention": Case(
        "hgrn2", mixer(HGRN2, lambda h: {"heads": h["hidden_size"] // h["expand_ratio"]}), state=("S", True)
    ),
    "HGRNAttention": Case("hgrn", mixer(HGRN), state=("h", False)),
    "LogLinearMamba2": Case("log_linear_mamba2", mixer(LogLinearMamba2, lambda h: {"levels": 15})),
    "Raven": Case("raven", mixer(Raven, **SHARED)),
    "RodimusAttention": Case("rodimus", mixer(Rodimus), state=("S", True)),
}

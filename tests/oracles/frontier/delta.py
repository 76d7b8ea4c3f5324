"""Layers of the delta rule, as flash-linear-attention has them: how each is compared, by class."""

from zoo.architectures.comba import Comba
from zoo.architectures.gated_delta_net_2 import GatedDeltaNet2
from zoo.architectures.gated_delta_product import GatedDeltaProduct
from zoo.architectures.kda import KDA
from zoo.architectures.mixture_of_memories import MixtureOfMemories
from zoo.architectures.precond_gated_delta_net import PrecondGatedDeltaNet

from ..cases import Case, mixer

HEADS = {"heads": "num_heads", "value_heads": "num_v_heads"}
CASES: dict[str, Case] = {
    "KimiDeltaAttention": Case("kda", mixer(KDA, **HEADS), state=("S", True)),
    "GatedDeltaProduct": Case("gated_delta_product", mixer(GatedDeltaProduct, **HEADS), state=("S", False)),
    "Comba": Case("comba", mixer(Comba, heads="num_heads"), state=("S", False)),
    # Of each memory its last state is a list's, not recorded.
    "MomAttention": Case("mixture_of_memories", mixer(MixtureOfMemories, heads="num_heads")),
    "GatedDeltaNet2": Case("gated_delta_net_2", mixer(GatedDeltaNet2, **HEADS), state=("S", False)),
    # Its last state is a pair, which is not recorded.
    "PrecondGatedDeltaNet": Case("precond_gated_delta_net", mixer(PrecondGatedDeltaNet, **HEADS)),
}

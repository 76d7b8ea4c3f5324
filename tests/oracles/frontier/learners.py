"""Layers that learn as they read, and Mamba-3, as flash-linear-attention has them: how each is compared, by class."""

from zoo.architectures.mamba3 import Mamba3
from zoo.architectures.mesa_net import MesaNet

from ..cases import Case, mixer

CASES: dict[str, Case] = {
    "Mamba3": Case("mamba3", mixer(Mamba3, d_state="state_size", headdim="head_dim", ngroups="n_groups")),
    "MesaNet": Case("mesa_net", mixer(MesaNet, heads="num_heads")),
}

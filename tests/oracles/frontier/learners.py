"""Layers that learn as they read, and Mamba-3, as flash-linear-attention has them: how each is compared, by class."""

from zoo.architectures.mamba3 import Mamba3
from zoo.architectures.mesa_net import MesaNet
from zoo.architectures.titans import Titans
from zoo.architectures.ttt_linear import TTTLinear

from ..cases import Case, mixer

CASES: dict[str, Case] = {
    "Mamba3": Case("mamba3", mixer(Mamba3, d_state="state_size", headdim="head_dim", ngroups="n_groups")),
    "MesaNet": Case("mesa_net", mixer(MesaNet, heads="num_heads")),
    "titans_linear, corrected": Case("titans", mixer(Titans, heads="num_heads")),
}
TTT = Case("ttt_linear", mixer(TTTLinear, heads="num_attention_heads"), steps="output.step")
OTHERS = dict.fromkeys(["ttt_linear", "ttt_linear_plain"], TTT)

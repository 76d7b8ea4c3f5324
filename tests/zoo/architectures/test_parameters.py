"""How parameters start, and which the optimiser treats in a way of their own."""

import fnmatch
from dataclasses import dataclass, field

import pytest
import torch

from zoo.architectures import rwkv4, rwkv5, rwkv6, rwkv7
from zoo.architectures.based import BaseConv, Based
from zoo.architectures.bigbird import BigBird
from zoo.architectures.delta_net import DeltaNet
from zoo.architectures.fast_weights import FastWeights
from zoo.architectures.gated_delta_net import GatedDeltaNet
from zoo.architectures.gla import GLA
from zoo.architectures.gmlp import SpatialGate
from zoo.architectures.gru import GRU
from zoo.architectures.gss import GSS
from zoo.architectures.h3 import H3
from zoo.architectures.hyena import Hyena
from zoo.architectures.linear_transformer import LinearAttention
from zoo.architectures.linformer import Linformer
from zoo.architectures.longformer import Longformer
from zoo.architectures.lru import LRU
from zoo.architectures.lstm import LSTM
from zoo.architectures.mamba import Mamba
from zoo.architectures.mamba2 import Mamba2
from zoo.architectures.mega import Mega
from zoo.architectures.mlp_mixer import TokenMLP
from zoo.architectures.mlstm import MLSTM
from zoo.architectures.nystromformer import Nystromformer
from zoo.architectures.reformer import Reformer
from zoo.architectures.retnet import Retention
from zoo.architectures.rg_lru import RecurrentBlock
from zoo.architectures.s4 import S4
from zoo.architectures.s4d import S4D
from zoo.architectures.s5 import S5
from zoo.architectures.sinkhorn import Sinkhorn
from zoo.architectures.slstm import SLSTM
from zoo.architectures.synthesizer import Synthesizer
from zoo.contract import LayerContext, ParamOverride
from zoo.layers.attention import Attention
from zoo.layers.local_attention import LocalAttention

FREE = ParamOverride(decay=False)
DECAYS = ParamOverride(decay=True)
SLOW = ParamOverride(lr_max=1e-3, decay=False)
RWKV_CHANNEL = {"time_mix_k time_mix_r": FREE}
HYENA_LAYERS = " ".join(f"filter_fn.implicit_filter.{i}.{part}" for i in (0, 2, 4) for part in ("weight", "bias"))

# kind, options, {names: override}; other parameters follow the rule: matrices of linear layers and convolutions decay.
OVERRIDES = [
    (DeltaNet, {"use_gate": True}, {}),
    (GatedDeltaNet, {}, {"A_log dt_bias": FREE}),
    (
        RecurrentBlock,
        {},
        {"rg_lru.input_gate_weight rg_lru.recurrent_gate_weight": DECAYS, "rg_lru.recurrent_param": FREE},
    ),
    (GRU, {}, {"gru.weight_ih_l0 gru.weight_hh_l0": DECAYS}),
    (LSTM, {}, {"lstm.weight_ih_l0 lstm.weight_hh_l0": DECAYS}),
    (GSS, {}, {"dss.Lambda_real dss.Lambda_imag dss.C_real dss.C_imag dss.param_D": FREE}),
    (
        H3,
        {},
        {
            "ssm_k_kernel.kernel.B kernel.kernel.B kernel.kernel.log_dt kernel.kernel.inv_A_real": SLOW,
            "kernel.kernel.A_imag": SLOW,
            "ssm_k_kernel.kernel.C kernel.kernel.C ssm_k_D D": FREE,
        },
    ),
    (
        Hyena,
        {},
        {
            f"{HYENA_LAYERS} filter_fn.implicit_filter.1.freq filter_fn.implicit_filter.6.weight": SLOW,
            "filter_fn.pos_emb.z": ParamOverride(lr_max=1e-5, decay=False),
            "in_proj.bias short_filter.bias out_proj.bias filter_fn.bias": FREE,
        },
    ),
    (
        LRU,
        {},
        {
            "nu_log theta_log gamma_log B_re B_im": ParamOverride(lr_scale=0.5, decay=False),
            "C_re C_im": DECAYS,
            "D": FREE,
        },
    ),
    (Mamba, {}, {"A_log D dt_proj.bias": FREE}),
    (Mamba2, {}, {"A_log D dt_bias": FREE}),
    (
        Mega,
        {},
        {
            "gamma beta move.delta move.alpha move.beta move.gamma move.omega rel_pos_bias.rel_pos_bias": FREE,
            "v_proj.bias mx_proj.bias h_proj.bias": FREE,
        },
    ),
    (
        MLSTM,
        {},
        {"q_proj.weight k_proj.weight v_proj.weight": DECAYS, "learnable_skip mlstm_cell.outnorm.weight": FREE},
    ),
    (
        SLSTM,
        {},
        {
            "fgate.weight igate.weight zgate.weight ogate.weight": DECAYS,
            "slstm_cell._recurrent_kernel_ slstm_cell._bias_ group_norm.weight": FREE,
        },
    ),
    (
        rwkv4.TimeMix,
        {},
        {
            "time_decay": ParamOverride(lr_scale=2.0, decay=False),
            "time_first": ParamOverride(lr_scale=3.0, decay=False),
            "time_mix_k time_mix_v time_mix_r": FREE,
        },
    ),
    (
        rwkv5.TimeMix,
        {},
        {
            "time_decay": ParamOverride(lr_scale=2.0, decay=False),
            "time_faaaa time_mix_k time_mix_v time_mix_r time_mix_g": FREE,
        },
    ),
    (
        rwkv6.TimeMix,
        {},
        {
            "time_decay": ParamOverride(lr_scale=2.0, decay=False),
            "time_faaaa time_decay_w1 time_decay_w2 time_maa_x time_maa_w1 time_maa_w2": FREE,
            "time_maa_w time_maa_k time_maa_v time_maa_r time_maa_g": FREE,
        },
    ),
    (
        rwkv7.TimeMix,
        {},
        {
            "w0": ParamOverride(lr_scale=2.0, decay=False),
            "x_r x_w x_k x_v x_a x_g w1 w2 a0 a1 a2 v0 v1 v2 g1 g2 k_k k_a r_k": FREE,
        },
    ),
    (rwkv4.ChannelMix, {"expand": 4.0}, RWKV_CHANNEL),
    (rwkv5.ChannelMix, {"expand": 3.5}, RWKV_CHANNEL),
    (rwkv6.ChannelMix, {"expand": 3.5}, {"time_maa_k time_maa_r": FREE}),
    (rwkv7.ChannelMix, {"expand": 4.0}, {"x_k": FREE}),
    (S4, {}, {"log_dt log_A_real A_imag B P": SLOW, "C D": FREE}),
    (S4D, {}, {"log_dt log_A_real A_imag B": SLOW, "C D": FREE}),
    (S5, {"causal": True}, {"Lambda_re Lambda_im log_step B": SLOW, "D": FREE, "C": DECAYS}),
    (S5, {"causal": False}, {"Lambda_re Lambda_im log_step B": SLOW, "D": FREE, "C1 C2": DECAYS}),
    (Linformer, {"sharing": "none"}, {"E F": DECAYS}),
    (Linformer, {"sharing": "key_value"}, {"E": DECAYS}),
    (Sinkhorn, {"sort_net": "simple"}, {"linear": DECAYS}),
    (Sinkhorn, {"sort_net": "attention"}, {}),
]


def identity(value):
    """The module and the name of a class; other values as they are."""
    return f"{value.__module__.rsplit('.')[-1]}.{value.__name__}" if isinstance(value, type) else str(value)


@pytest.mark.parametrize(("kind", "options", "wanted"), OVERRIDES, ids=identity)
def test_overrides(kind, options, wanted):
    context = LayerContext(
        width=64, length=8, causal=options.get("causal", kind.traits.causal != "no"), layer=1, depth=2
    )
    mixer = kind(context, **{name: value for name, value in options.items() if name != "causal"})
    assert mixer.param_overrides() == {name: group for names, group in wanted.items() for name in names.split()}


@dataclass
class Start:
    """What parameters of a mixer start as; names are patterns, several in one string."""

    kind: type
    width: int
    depth: int = 8
    options: dict = field(default_factory=dict)
    std: dict[str, float] = field(default_factory=dict)
    rel: float = 0.05
    """Relative tolerance of standard deviations."""
    bound: dict[str, float] = field(default_factory=dict)
    """U(−bound, bound)."""
    zero: str = ""
    one: str = ""
    length: int = 64


def shrunk(width, depth):
    """The deviation of a projection into the residual stream: N(0, 1/fan_in), over √(2 · depth)."""
    return (2 * depth * width) ** -0.5


PRE_LN = {"query.weight key.weight value.weight": 1 / 16, "out.weight": shrunk(256, 4)}
XLSTM = (2 / (5 * 64)) ** 0.5
STARTS = [
    Start(Attention, 128, std={"qkv.weight": 128**-0.5, "out.weight": shrunk(128, 8)}, zero="*.bias"),
    Start(
        LocalAttention,
        256,
        4,
        {"kv_heads": 2},
        {"[qkv]_proj.weight": 1 / 16, "out_proj.weight": shrunk(256, 4)},
        rel=0.02,
        zero="*.bias",
    ),
    Start(Longformer, 256, 4, std=PRE_LN, rel=0.02, zero="*.bias"),
    Start(BigBird, 256, 4, std=PRE_LN, rel=0.02, zero="*.bias"),
    Start(Sinkhorn, 256, 4, std={"to_q.weight to_kv.weight": 1 / 16, "to_out.weight": shrunk(256, 4)}, rel=0.02),
    Start(Sinkhorn, 256, 4, std={"linear": 1}, rel=0.1),
    Start(
        Nystromformer,
        64,
        std={"query.weight": 1 / 8, "out.weight": shrunk(64, 8)},
        rel=0.1,
        bound={"conv.weight": 65**-0.5},
    ),
    Start(Reformer, 64, std={"query_key.weight": 1 / 8, "out.weight": shrunk(64, 8)}, rel=0.1),
    Start(
        Synthesizer,
        64,
        options={"variant": "random", "dot": "alpha"},
        std={"out.weight": shrunk(64, 8)},
        rel=0.1,
        bound={"R": (6 / 80) ** 0.5},
        zero="alpha",
        length=40,
    ),
    Start(Linformer, 12, 2, {"k": 5}, bound={"E": (3 / 22) ** 0.5}, length=17),
    Start(
        LinearAttention,
        256,
        std={"query_*.weight key_*.weight value_*.weight": 1 / 16, "out_*.weight": shrunk(256, 8)},
        zero="*.bias",
    ),
    Start(Based, 256, std={"[qkv]_proj.weight": 1 / 16, "o_proj.weight": shrunk(256, 8)}),
    Start(
        BaseConv,
        64,
        2,
        std={"in_proj.weight": 1 / 8, "out_proj.weight": shrunk(128, 2)},
        bound={"conv1.weight": 3**-0.5},
        zero="in_proj.bias",
    ),
    Start(
        DeltaNet,
        256,
        options={"use_gate": True},
        std={"[qkvbg]_proj.weight": 1 / 16, "o_proj.weight": shrunk(256, 8)},
        rel=0.1,
        bound={"q_conv1d.weight": 0.5},
        one="o_norm.weight",
    ),
    Start(FastWeights, 256, std={"slow_net.weight": 1 / 16, "out_linear.weight": shrunk(256, 8)}),
    Start(
        GLA,
        256,
        options={"use_short_conv": True},
        std={"q_proj.weight": 1 / 16, "o_proj.weight": shrunk(256, 8)},
        bound={"q_conv1d.weight": 0.5},
        zero="gk_proj.1.bias",
        one="g_norm.weight",
    ),
    Start(GLA, 256, std={"gk_proj.1.weight": 1 / 4}, rel=0.1),
    Start(
        Retention,
        64,
        1,
        bound={
            "[qk]_proj.weight": 2**-2.5 * (6 / 128) ** 0.5,
            "[vg]_proj.weight": 2**-2.5 * (6 / 192) ** 0.5,
            "out_proj.weight": 0.5 * (6 / 192) ** 0.5,
        },
    ),
    Start(
        Mamba,
        64,
        4,
        {"bias": True},
        bound={"dt_proj.weight": 0.5, "in_proj.weight": 1 / 8, "out_proj.weight": 128**-0.5 / 2},
        zero="in_proj.bias out_proj.bias",
        one="D",
    ),
    Start(
        Mamba2,
        256,
        4,
        {"d_state": 4, "headdim": 2, "conv_init": 0.01},
        bound={"conv1d.weight": 0.01, "out_proj.weight": 512**-0.5 / 2},
        one="D",
    ),
    Start(GSS, 128, 2, {"d_state": 512}, {"dss.C_real": 1, "to_out.weight": shrunk(512, 2)}),
    Start(GSS, 128, 2, {"d_state": 512}, {"dss.Lambda_imag": 1}, rel=0.15),
    Start(H3, 256, std={"D ssm_k_D": 1}, rel=0.2),
    Start(S4D, 256, std={"D": 1}, rel=0.2),
    Start(
        Mega,
        256,
        std={
            "move.alpha move.delta": 0.2,
            "move.gamma move.omega": 1,
            "gamma rel_pos_bias.rel_pos_bias": 0.02,
            "v_proj.weight": 1 / 16,
        },
        rel=0.25,
        zero="beta",
        length=50,
    ),
    Start(
        MLSTM,
        64,
        5,
        {"heads": 4, "bias": True},
        {"proj_up.weight [qkv]_proj.weight": XLSTM},
        rel=0.15,
        zero="*proj*.bias mlstm_cell.*.weight",
        one="learnable_skip",
    ),
    Start(MLSTM, 64, 5, std={"proj_down.weight": 2 / 5 / 8}),
    Start(SLSTM, 64, 5, std={"?gate.weight": XLSTM}, rel=0.15, zero="slstm_cell._recurrent_kernel_ group_norm.weight"),
    Start(
        RecurrentBlock,
        128,
        options={"heads": 2, "lru_width": 256},
        std={
            "linear_[xy].weight rg_lru.*_gate_weight": 128**-0.5,
            "linear_out.weight": (2 / 8 / 256) ** 0.5,
            "conv_1d.weight": 0.05,
        },
        rel=0.1,
        zero="*.bias *_bias",
    ),
    Start(TokenMLP, 400, std={"fc1.weight": 300**-0.5, "fc2.weight": 200**-0.5}, rel=0.02, zero="*.bias", length=300),
    Start(SpatialGate, 64, 4, {"expand": 2}, {"fc2.weight": shrunk(64, 4)}),
]


@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.kind.__name__)
def test_starts(start):
    torch.manual_seed(0)
    context = LayerContext(start.width, start.length, causal=start.kind.traits.causal != "no", depth=start.depth)
    mixer = start.kind(context, **start.options)
    mixer.reset_parameters(layer=0, depth=start.depth)

    def found(patterns):
        named = dict(mixer.named_parameters())
        matches = [fnmatch.filter(named, pattern) for pattern in patterns.split()]
        assert all(matches), patterns
        return [(name, named[name].detach()) for match in matches for name in match]

    for patterns, std in start.std.items():
        for name, value in found(patterns):
            assert value.std().item() == pytest.approx(std, rel=start.rel), name
    for patterns, bound in start.bound.items():
        for name, value in found(patterns):
            assert 1 - 10 / value.numel() < value.abs().max() / bound < 1 + 1e-5, name
    for patterns, constant in ((start.zero, 0), (start.one, 1)):
        for name, value in found(patterns):
            assert bool((value == constant).all()), name


def test_a_gain_scales_values_and_outputs():
    context = LayerContext(width=256, length=8, gain=0.25)
    fast, local = FastWeights(context), LocalAttention(context)
    for mixer in (fast, local):
        mixer.reset_parameters(layer=0, depth=8)
    q, k, v, b = fast.slow_net.weight.unflatten(0, (4, -1)).split([64, 64, 64, 1], dim=1)
    parts = [(q, 1), (k, 1), (v, 0.25), (b, 1), (fast.out_linear.weight, 0.25)]
    parts += [(getattr(local, f"{name}_proj").weight, gain) for name, gain in zip("qkv", (1, 1, 0.25), strict=True)]
    for part, gain in (*parts, (local.out_proj.weight, 0.25)):
        assert part.std().item() == pytest.approx(gain / 16, rel=0.1)


@pytest.mark.parametrize(("kind", "name", "options"), [(GRU, "gru", {}), (LSTM, "lstm", {"forget_bias": 1.5})])
def test_recurrent_matrices_start_orthogonal(kind, name, options):
    mixer = kind(LayerContext(width=16, length=8), **options)
    mixer.reset_parameters(layer=0, depth=1)
    cell = getattr(mixer, name)
    for gate in cell.weight_hh_l0.split(16):
        torch.testing.assert_close(gate @ gate.T, torch.eye(16), rtol=0, atol=1e-5)
    wanted = torch.zeros_like(cell.bias_ih_l0)
    if "forget_bias" in options:
        wanted[16:32] = options["forget_bias"]
    assert torch.equal(cell.bias_ih_l0, wanted)
    assert not cell.bias_hh_l0.any()


def test_longformers_global_projections_start_as_copies():
    mixer = Longformer(LayerContext(width=64, length=8, causal=False))
    mixer.reset_parameters(layer=1, depth=4)
    for name in ("query", "key", "value"):
        assert torch.equal(getattr(mixer, f"{name}_global").weight, getattr(mixer, name).weight)

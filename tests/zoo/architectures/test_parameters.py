"""How parameters start, and which the optimiser treats in a way of their own."""

import fnmatch
import math
from dataclasses import dataclass

import pytest
import torch

from zoo.architectures.fast_weights import FastWeights
from zoo.architectures.longformer import Longformer
from zoo.contract import LayerContext, ParamOverride
from zoo.layers.local_attention import LocalAttention

from .mixers import make_mixer, part_of

FREE, DECAYS = ParamOverride(decay=False), ParamOverride(decay=True)
SLOW = ParamOverride(lr_max=1e-3, decay=False)
TWICE, THRICE, HALF = (ParamOverride(lr_scale=scale, decay=False) for scale in (2.0, 3.0, 0.5))
RWKV_CHANNEL = {"time_mix_k time_mix_r": FREE}
HYENA_LAYERS = " ".join(f"filter_fn.implicit_filter.{i}.{part}" for i in (0, 2, 4) for part in ("weight", "bias"))
GATES = "rg_lru.input_gate_weight rg_lru.recurrent_gate_weight"

# mixer, options, {names: override}; other parameters follow the rule: matrices of linear layers and convolutions decay.
OVERRIDES = [
    ("attention", {"qk_norm": True, "gate": True, "sinks": True}, {}),
    ("delta_net", {"use_gate": True}, {}),
    ("comba", {}, {"A_log dt_bias D decay": FREE}),
    ("gated_delta_net", {}, {"A_log dt_bias": FREE}),
    ("gated_delta_product", {"use_forget_gate": False}, {}),
    ("kda", {}, {"A_log dt_bias": FREE}),
    ("mixture_of_memories", {}, {"A_log dt_bias": FREE}),
    ("precond_gated_delta_net", {}, {"A_log dt_bias A_log_atk dt_bias_atk log_atk_scale": FREE}),
    ("rg_lru", {}, {GATES: DECAYS, "rg_lru.recurrent_param": FREE}),
    ("gru", {}, {"gru.weight_ih_l0 gru.weight_hh_l0": DECAYS}),
    ("lstm", {}, {"lstm.weight_ih_l0 lstm.weight_hh_l0": DECAYS}),
    ("gss", {}, {"dss.Lambda_real dss.Lambda_imag dss.C_real dss.C_imag dss.param_D": FREE}),
    ("h3", {}, {"ssm_k_kernel.kernel.B kernel.kernel.B": SLOW, "ssm_k_kernel.kernel.C kernel.kernel.C": FREE,
                "kernel.kernel.log_dt kernel.kernel.inv_A_real kernel.kernel.A_imag": SLOW, "ssm_k_D D": FREE}),
    ("hyena", {}, {f"{HYENA_LAYERS} filter_fn.implicit_filter.1.freq filter_fn.implicit_filter.6.weight": SLOW,
                   "filter_fn.pos_emb.z": ParamOverride(lr_max=1e-5, decay=False),
                   "in_proj.bias short_filter.bias out_proj.bias filter_fn.bias": FREE}),
    ("lru", {}, {"nu_log theta_log gamma_log B_re B_im": HALF, "C_re C_im": DECAYS, "D": FREE}),
    ("mamba", {}, {"A_log D dt_proj.bias": FREE}),
    ("hymba", {}, {"A_log D dt_proj.bias": FREE}),
    ("mamba2", {}, {"A_log D dt_bias": FREE}),
    ("mamba3", {}, {"D dt_bias": FREE}),
    ("mega", {}, {"gamma beta move.delta move.alpha move.beta move.gamma move.omega": FREE,
                  "rel_pos_bias.rel_pos_bias v_proj.bias mx_proj.bias h_proj.bias": FREE}),
    ("mesa_net", {}, {"lambda_params": FREE}),
    ("mlstm", {}, {"q_proj.weight k_proj.weight v_proj.weight": DECAYS,
                   "learnable_skip mlstm_cell.outnorm.weight": FREE}),
    ("slstm", {}, {"fgate.weight igate.weight zgate.weight ogate.weight": DECAYS,
                   "slstm_cell._recurrent_kernel_ slstm_cell._bias_ group_norm.weight": FREE}),
    ("rwkv4", {}, {"time_decay": TWICE, "time_first": THRICE, "time_mix_k time_mix_v time_mix_r": FREE}),
    ("rwkv5", {}, {"time_decay": TWICE, "time_faaaa time_mix_k time_mix_v time_mix_r time_mix_g": FREE}),
    ("rwkv6", {}, {"time_decay": TWICE, "time_faaaa time_decay_w1 time_decay_w2 time_maa_x time_maa_w1": FREE,
                   "time_maa_w2 time_maa_w time_maa_k time_maa_v time_maa_r time_maa_g": FREE}),
    ("rwkv7", {}, {"w0": TWICE, "x_r x_w x_k x_v x_a x_g w1 w2 a0 a1 a2 v0 v1 v2 g1 g2 k_k k_a r_k": FREE}),
    ("rwkv4.channel", {}, RWKV_CHANNEL),
    ("rwkv5.channel", {}, RWKV_CHANNEL),
    ("rwkv6.channel", {}, {"time_maa_k time_maa_r": FREE}),
    ("rwkv7.channel", {}, {"x_k": FREE}),
    ("s4", {}, {"log_dt log_A_real A_imag B P": SLOW, "C D": FREE}),
    ("s4d", {}, {"log_dt log_A_real A_imag B": SLOW, "C D": FREE}),
    ("s5", {"causal": True}, {"Lambda_re Lambda_im log_step B": SLOW, "D": FREE, "C": DECAYS}),
    ("s5", {"causal": False}, {"Lambda_re Lambda_im log_step B": SLOW, "D": FREE, "C1 C2": DECAYS}),
    ("linformer", {"sharing": "none"}, {"E F": DECAYS}),
    ("linformer", {"sharing": "key_value"}, {"E": DECAYS}),
    ("sinkhorn", {"sort_net": "simple"}, {"linear": DECAYS}),
    ("sinkhorn", {"sort_net": "attention"}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "wanted"), OVERRIDES, ids=str)
def test_overrides(name, options, wanted):
    options = dict(options)
    causal = options.pop("causal", part_of(name).kind.traits.causal != "no")
    mixer = make_mixer(name, LayerContext(width=64, length=8, causal=causal, layer=1, depth=2), **options)
    assert mixer.param_overrides() == {each: group for names, group in wanted.items() for each in names.split()}


@dataclass
class N:
    """N(0, std²), up to five standard errors."""

    std: float

    def check(self, value):
        assert value.std().item() == pytest.approx(self.std, rel=5 * (2 * value.numel()) ** -0.5)


@dataclass
class U:
    """U(−bound, bound)."""

    bound: float

    def check(self, value):
        assert 1 - 10 / value.numel() < value.abs().max() / self.bound < 1 + 1e-5


@dataclass
class Is:
    """The same number everywhere."""

    constant: float

    def check(self, value):
        assert bool((value == self.constant).all())


def out(width, depth):
    """A projection into the residual stream: N(0, 1/fan_in), over √(2 · depth)."""
    return N((2 * depth * width) ** -0.5)


ZERO, ONE, XLSTM = Is(0), Is(1), N((2 / (5 * 64)) ** 0.5)
PRE_LN = {"query.weight key.weight value.weight": N(1 / 16), "out.weight": out(256, 4), "*.bias": ZERO}

# mixer, width, depth, options (and the length, 64 unless it says so), {patterns: what matches starts as}
STARTS = [
    ("attention", 128, 8, {}, {"qkv.weight": N(128**-0.5), "out.weight": out(128, 8), "*.bias": ZERO}),
    ("attention", 128, 8, {"qk_norm": True, "gate": True, "sinks": True, "head_dim": 64},
     {"qkv.weight gate.weight": N(128**-0.5), "out.weight": out(256, 8), "*_norm.weight": ONE, "sinks *.bias": ZERO}),
    ("differential", 256, 4, {}, {"[qkv]_proj.weight": N(1 / 16), "out_proj.weight": out(256, 4), "subln.weight": ONE}),
    ("forgetting", 256, 4, {"qkv_bias": True, "qk_norm": True, "use_output_gate": True},
     {"[qkvfg]_proj.weight": N(1 / 16), "o_proj.weight": out(256, 4), "*.bias": ZERO, "*_norm.weight": ONE}),
    ("mla", 256, 4, {"q_lora_rank": 128},
     {"q_proj.0.weight kv_proj.0.weight k_rope.weight": N(1 / 16), "q_proj.2.weight": N(128**-0.5),
      "kv_proj.2.weight": N(1 / 8), "o_proj.weight": out(256, 4), "*_proj.1.weight": ONE}),
    ("yoco", 256, 4, {}, {"attn.[qkvg]_proj.weight attn.gk_proj.weight": N(1 / 16), "attn.o_proj.weight": out(256, 4)}),
    ("yoco", 256, 1, {"qk_norm": True},
     {"attn.q_proj.weight shared_kv_builder.[kv]_proj.weight": N(1 / 16), "attn.o_proj.weight": out(256, 1),
      "attn.q_norm.weight shared_kv_builder.kv_norm.weight": ONE}),
    ("local", 256, 4, {"kv_heads": 2},
     {"[qkv]_proj.weight": N(1 / 16), "out_proj.weight": out(256, 4), "*.bias": ZERO}),
    ("longformer", 256, 4, {}, PRE_LN),
    ("bigbird", 256, 4, {}, PRE_LN),
    ("sinkhorn", 256, 4, {}, {"to_q.weight to_kv.weight": N(1 / 16), "to_out.weight": out(256, 4), "linear": N(1)}),
    ("nystromformer", 64, 8, {}, {"query.weight": N(1 / 8), "out.weight": out(64, 8), "conv.weight": U(65**-0.5)}),
    ("reformer", 64, 8, {}, {"query_key.weight": N(1 / 8), "out.weight": out(64, 8)}),
    ("synthesizer", 64, 8, {"variant": "random", "dot": "alpha", "length": 40},
     {"out.weight": out(64, 8), "R": U((6 / 80) ** 0.5), "alpha": ZERO}),
    ("linformer", 12, 2, {"k": 5, "length": 17}, {"E": U((3 / 22) ** 0.5)}),
    ("linear_transformer", 256, 8, {},
     {"query_*.weight key_*.weight value_*.weight": N(1 / 16), "out_*.weight": out(256, 8), "*.bias": ZERO}),
    ("based", 256, 8, {}, {"[qkv]_proj.weight": N(1 / 16), "o_proj.weight": out(256, 8)}),
    ("base_conv", 64, 2, {},
     {"in_proj.weight": N(1 / 8), "out_proj.weight": out(128, 2), "conv1.weight": U(3**-0.5), "in_proj.bias": ZERO}),
    ("delta_net", 256, 8, {"use_gate": True},
     {"[qkvbg]_proj.weight": N(1 / 16), "o_proj.weight": out(256, 8), "q_conv1d.weight": U(0.5), "o_norm.weight": ONE}),
    ("kda", 256, 8, {"lower_bound": -5.0},
     {"[qkvb]_proj.weight [fg]_proj.0.weight": N(1 / 16), "[fg]_proj.1.weight": N(1 / 8), "o_proj.weight": out(256, 8),
      "g_proj.1.bias A_log": ZERO}),
    ("gated_delta_net_2", 256, 8, {}, {"[bw]_proj.weight f_proj.0.weight": N(1 / 16), "o_proj.weight": out(256, 8)}),
    ("comba", 256, 8, {}, {"decay": ONE, "D": Is(0.02), "o_proj.weight": out(384, 8)}),
    ("precond_gated_delta_net", 256, 8, {}, {"[ab]_atk_proj.weight": N(1 / 16), "log_atk_scale": Is(-0.2)}),
    ("mixture_of_memories", 256, 8, {},
     {"[kvba]_proj.3.weight shared_[kvba].weight gate.weight": N(1 / 16), "o_proj.weight": out(128, 8)}),
    ("deltaformer", 256, 8, {"qkv_bias": True, "qk_norm": True},
     {"[qkvb]_proj.weight": N(1 / 16), "o_proj.weight": out(256, 8), "*.bias": ZERO, "[qk]_norm.weight": ONE}),
    ("fast_weights", 256, 8, {}, {"slow_net.weight": N(1 / 16), "out_linear.weight": out(256, 8)}),
    ("moba", 256, 8, {"use_output_gate": True},
     {"[qkv]_proj.weight g_proj.0.weight": N(1 / 16), "g_proj.1.weight": N(1 / 8), "o_proj.weight": out(256, 8),
      "o_norm.weight": ONE}),
    ("nsa", 256, 8, {}, {"[qkvg]_proj.weight": N(1 / 16), "o_proj.weight": out(256, 8)}),
    ("parallax", 256, 8, {"qk_norm": True},
     {"[qrkv]_proj.weight": N(1 / 16), "o_proj.weight": out(256, 8), "[qrk]_norm.weight": ONE}),
    ("path", 256, 8, {"use_forget_gate": True, "use_qk_norm": True},
     {"[qkvg]_proj.weight bt_proj.weight w_proj.0.weight": N(1 / 16), "w_proj.1.weight": N(32**-0.5),
      "o_proj.weight": out(256, 8), "*_proj.bias": ZERO, "w_conv1d.weight": U(3**-0.5), "maybe_*_norm.weight": ONE}),
    ("wall", 256, 8, {"use_scalar_gate": True, "use_output_gate": True, "qk_norm": True},
     {"[qkvg]_proj.weight gs_proj.weight o_gate_proj.weight": N(1 / 16), "o_proj.weight": out(256, 8),
      "g_proj.bias gs_proj.bias": Is(8), "[qk]_norm.weight": ONE}),
    ("gla", 256, 8, {"use_short_conv": True},
     {"q_proj.weight": N(1 / 16), "o_proj.weight": out(256, 8), "gk_proj.1.weight": N(1 / 4),
      "q_conv1d.weight": U(0.5), "gk_proj.1.bias": ZERO, "g_norm.weight": ONE}),
    ("retnet", 64, 1, {},
     {"[qk]_proj.weight": U(2**-2.5 * (6 / 128) ** 0.5), "[vg]_proj.weight": U(2**-2.5 * (6 / 192) ** 0.5),
      "out_proj.weight": U(0.5 * (6 / 192) ** 0.5)}),
    ("mamba", 64, 4, {"bias": True},
     {"dt_proj.weight": U(0.5), "in_proj.weight": U(1 / 8), "out_proj.weight": U(128**-0.5 / 2),
      "in_proj.bias out_proj.bias": ZERO, "D": ONE}),
    ("hymba", 256, 4, {"bias": True},
     {"in_proj.weight": N(1 / 16), "out_proj.weight": out(512, 4), "dt_proj.weight": U(0.25),
      "in_proj.bias out_proj.bias": ZERO, "*_layernorm*.weight D": ONE}),
    ("mamba2", 256, 4, {"d_state": 4, "headdim": 2, "conv_init": 0.01},
     {"conv1d.weight": U(0.01), "out_proj.weight": U(512**-0.5 / 2), "D": ONE}),
    ("mamba3", 256, 4, {"is_mimo": True, "mimo_rank": 2},
     {"in_proj.weight": U(1 / 16), "out_proj.weight": U((8 * 512) ** -0.5), "[BC]_bias [BC]_norm.weight D mimo_z": ONE,
      "mimo_x mimo_o": Is(0.5)}),
    ("gss", 128, 2, {"d_state": 512}, {"dss.C_real dss.Lambda_imag": N(1), "to_out.weight": out(512, 2)}),
    ("h3", 256, 8, {}, {"D ssm_k_D": N(1)}),
    ("s4d", 256, 8, {}, {"D": N(1)}),
    ("mega", 256, 8, {"length": 50},
     {"move.alpha move.delta": N(0.2), "move.gamma move.omega": N(1), "gamma rel_pos_bias.rel_pos_bias": N(0.02),
      "v_proj.weight": N(1 / 16), "beta": ZERO}),
    ("mesa_net", 256, 8, {"lambda_lower_bound": 0.5},
     {"[qkvab]_proj.weight": N(1 / 16), "o_proj.weight": out(256, 8), "[ab]_proj.bias": ZERO, "o_norm.weight": ONE,
      "lambda_params": Is(math.log(math.exp(0.5) - 1))}),
    ("mlstm", 64, 5, {"heads": 4, "bias": True},
     {"proj_up.weight [qkv]_proj.weight": XLSTM, "proj_down.weight": N(2 / 5 / 8),
      "*proj*.bias mlstm_cell.*.weight": ZERO, "learnable_skip": ONE}),
    ("slstm", 64, 5, {}, {"?gate.weight": XLSTM, "slstm_cell._recurrent_kernel_ group_norm.weight": ZERO}),
    ("rg_lru", 128, 8, {"heads": 2, "lru_width": 256},
     {"linear_[xy].weight rg_lru.*_gate_weight": N(128**-0.5), "linear_out.weight": N((2 / 8 / 256) ** 0.5),
      "conv_1d.weight": N(0.05), "*.bias *_bias": ZERO}),
    ("mlp_mixer", 400, 8, {"length": 300},
     {"fc1.weight": N(300**-0.5), "fc2.weight": N(200**-0.5), "*.bias": ZERO}),
    ("convformer", 64, 4, {"columns": 5},
     {"fc1.weight": N(1 / 8), "conv.weight": N(1 / 7), "fc2.weight": out(128, 4), "act.scale": Is(0.8**0.5),
      "act.bias": Is(-(0.2**0.5))}),
    ("gmlp", 64, 4, {"expand": 2.0}, {"fc2.weight": out(64, 4)}),
    ("titans", 256, 8, {},
     {"[qkvg]_proj.weight *a_proj.weight": N(1 / 16), "o_proj.weight": out(256, 8), "M0": N(1), "norm_bias": ZERO,
      "norm_weight o_norm.weight": ONE, "alpha_proj.bias": Is(-4), "eta_proj.bias": ZERO, "theta_proj.bias": Is(-2)}),
    ("ttt_linear", 256, 8, {},
     {"[qvg]_proj.weight": N(1 / 16), "o_proj.weight": out(256, 8), "W1 learnable_ttt_lr_weight": N(0.02),
      "b1 learnable_ttt_lr_bias learnable_token_idx *norm*bias": ZERO, "*norm*weight": ONE,
      "conv_[qk].weight": U(0.5)}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "width", "depth", "options", "starts"), STARTS, ids=lambda value: str(value)[:20])
def test_starts(name, width, depth, options, starts):
    torch.manual_seed(0)
    options = dict(options)
    causal = part_of(name).kind.traits.causal != "no"
    context = LayerContext(width, options.pop("length", 64), causal=causal, depth=depth)
    mixer = make_mixer(name, context, **options)
    mixer.reset_parameters(layer=0, depth=depth)
    named = dict(mixer.named_parameters())
    for patterns, start in starts.items():
        for pattern in patterns.split():
            assert fnmatch.filter(named, pattern), pattern
            for each in fnmatch.filter(named, pattern):
                start.check(named[each].detach())


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


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_recurrent_matrices_start_orthogonal(name):
    mixer = make_mixer(name, LayerContext(width=16, length=8))
    mixer.reset_parameters(layer=0, depth=1)
    cell = getattr(mixer, name)
    for gate in cell.weight_hh_l0.split(16):
        torch.testing.assert_close(gate @ gate.T, torch.eye(16), rtol=0, atol=1e-5)
    wanted = torch.zeros_like(cell.bias_ih_l0)
    if name == "lstm":
        wanted[16:32] = 1  # the forget gate's
    assert torch.equal(cell.bias_ih_l0, wanted)
    assert not cell.bias_hh_l0.any()


def test_longformers_global_projections_start_as_copies():
    mixer = Longformer(LayerContext(width=64, length=8, causal=False))
    mixer.reset_parameters(layer=1, depth=4)
    for name in ("query", "key", "value"):
        assert torch.equal(getattr(mixer, f"{name}_global").weight, getattr(mixer, name).weight)

"""Slots, and log-linear attention, against recorded official code in float64."""

import math
from pathlib import Path

import torch

from zoo.architectures.gated_slot_attention import GatedSlotAttention
from zoo.architectures.log_linear_gated_delta_net import LogLinearGatedDeltaNet
from zoo.contract import LayerContext
from zoo.ops.linear_attention import linear_attention
from zoo.ops.log_linear_attention import log_linear_attention, log_linear_attention_naive

from .compare import in_pieces, leaves, read

RECORDED = Path(__file__).parent / "recorded"


def test_slots(oracle, frontier_parity):
    """Outputs, gradients, and the slots after the last step, by one pass and step by step."""
    recorded, inputs = frontier_parity("fla_gsa_layer")
    x = inputs["input"]
    mixer = GatedSlotAttention(LayerContext(width=24, length=37), heads=3, num_slots=5).double()
    mixer.load_state_dict({name: value for name, value in inputs.items() if name != "input"})
    proof = oracle("gated_slot_attention", "flash-linear-attention, GatedSlotAttention and its state (recorded)")
    proof.recorded(mixer(x)[0], recorded, leaves(mixer, input=x), 1e-12, 1e-11)
    whole = mixer(x, state=mixer.init_state(len(x), device="cpu", dtype=x.dtype))
    for y, state in (whole, in_pieces(mixer, x)):
        proof.outputs(y, recorded["output"], 1e-12)
        proof.outputs(state["K"], recorded["state.final.k"], 1e-12)
        proof.outputs(state["V"], recorded["state.final.v"], 1e-12)


def test_log_linear_attention(oracle, frontier_parity):
    recorded, inputs = frontier_parity("fla_log_linear_attn")
    q, k, v, g, scales = (inputs[name].transpose(1, 2) for name in ("q", "k", "v", "g", "level_scales"))
    proof = oracle("log_linear_mamba2", "flash-linear-attention, naive_log_linear_attn (recorded)")
    for op in (log_linear_attention, log_linear_attention_naive):
        o, state = op(q, k, v, g, scales)
        assert state is None
        proof.recorded(o.transpose(1, 2), recorded, inputs, 1e-12, 1e-11)
    half = torch.zeros(2, 3, 6, 8, 12, dtype=torch.float64), torch.zeros(2, dtype=torch.long)
    pieces = []
    for at in (slice(0, 20), slice(20, 37)):
        o, half = log_linear_attention(*(x[:, :, at] for x in (q, k, v, g, scales)), half)
        pieces.append(o)
    proof.outputs(torch.cat(pieces, dim=2).transpose(1, 2), recorded["output"], 1e-12)


def test_linear_attention_with_lightnings_decays(oracle, frontier_parity):
    """flash-linear-attention's decays are other ones than MiniMax's: the op is given them."""
    data, x = frontier_parity("fla_lightning_attn_layer0of4")
    H, K = x["q"].shape[2:]
    log_decay = -8 / H * torch.arange(H, dtype=torch.float64)[None, :, None].expand(1, H, x["q"].shape[1])
    q, k, v = (x[name].transpose(1, 2) for name in "qkv")
    o, S = linear_attention(q, k, v, log_decay, x["initial_state"], scale=K**-0.5)
    proof = oracle("lightning_attention", "flash-linear-attention, naive_recurrent_simple_gla (recorded)")
    proof.recorded(o.transpose(1, 2), data, x)
    proof.outputs(S, data["state.final"], 1e-12)


def test_log_linear_gated_delta_net_of_equal_weights(oracle):
    """With L = 0 every λ is softplus(0) = ln 2; so much less of o the norm does not see, but for ε."""
    data, inputs, p = read(RECORDED / "fla_gated_delta_net.safetensors")
    x, context = inputs["input"], LayerContext(width=24, length=70)
    mixer = LogLinearGatedDeltaNet(context, heads=3, head_dim=6, norm_eps=1e-5 * math.log(2) ** 2).double()
    torch.nn.init.zeros_(mixer.L)
    mixer.load_state_dict({**mixer.state_dict(), **p})
    proof = oracle("log_linear_gated_delta_net", "flash-linear-attention 0.6.0, GatedDeltaNet of equal λ (recorded)")
    own = {name: value for name, value in mixer.named_parameters() if name in p}
    assert own.keys() == p.keys()
    proof.recorded(mixer(x)[0], data, {"input": x, **own}, 1e-5, 1e-4)
    proof.outputs(in_pieces(mixer, x)[0], data["output"], 1e-5)

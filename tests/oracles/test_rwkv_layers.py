"""The layers of RWKV-5, 6 and 7: a recorded official one, and the official formulas step by step in float64.

The references below are written from RWKV-v5/src/model.py (x052, x060), RWKV-v7/train_temp/src/model.py (x070) and
RWKV-v7/rwkv_v7_numpy.py of BlinkDL/RWKV-LM: one row, one step and one head at a time, states values by keys.
"""

import math

import pytest
import torch

from zoo.architectures import rwkv5, rwkv6, rwkv7
from zoo.contract import LayerContext

from .compare import leaves, vectors

C, T = 24, 13


def randomised(mixer):
    """The mixer in float64, every parameter away from its (often zero) initial value."""
    mixer = mixer.double()
    for p in mixer.parameters():
        p.data += torch.randn_like(p) * (0.5 if p.shape[0] == 1 or p.dim() < 2 else p.shape[1] ** -0.5)
    return mixer


def compare(proof, mixer, reference, *, v_first=None):
    """Outputs, final states and the gradients of x, every parameter and v_first, from a state that is not zero."""
    p, x = leaves(mixer), vectors(2, T, C)
    seen = torch.randn(2, 5, C, dtype=torch.float64)
    extra = {} if v_first is None else {"shared_context": {"v_first": v_first}}
    early = {} if v_first is None else {"shared_context": {"v_first": torch.zeros_like(seen)}}
    start = mixer.init_state(2, device="cpu", dtype=torch.float64)
    with torch.no_grad():
        before = mixer(seen, state=start, **early)[1]
    y, after = mixer(x, state=before, **extra)
    rows = []
    for row in range(2):
        first = None if v_first is None else v_first[row]
        own = {name: value[row] for name, value in before.items()}
        out, state = reference(p, x[row], own, first)
        rows.append(out)
        for name, value in state.items():
            proof.outputs(after[name][row], value, 1e-9)
    inputs = {"x": x} if v_first is None else {"x": x, "v_first": v_first}
    proof.equal(y, torch.stack(rows), {**inputs, **p}, tolerance=1e-9, gradients=1e-9)


def group_norm(y, heads, weight, bias, eps):
    y = y.view(heads, -1)
    y = (y - y.mean(1, keepdim=True)) / (y.var(1, keepdim=True, correction=0) + eps).sqrt()
    return y.flatten() * weight + bias


def silu(x):
    return x / (1 + torch.exp(-x))


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def test_rwkv6_time_mix_recorded(parity, oracle):
    data, official = parity("rwkv6_tmix")
    x = official.pop("input")
    mixer = rwkv6.TimeMix(LayerContext(width=16, length=17), head_size=8, mix_lora=5, decay_lora=6).double()
    mixer.load_state_dict(official)
    y, state = mixer(x, state=mixer.init_state(2, device="cpu", dtype=torch.float64))
    proof = oracle("rwkv6", "BlinkDL/RWKV-LM, RWKV_Tmix_x060 (recorded)")
    proof.recorded(y, data, leaves(mixer, input=x))
    proof.outputs(state["S"], data["state.final"], 1e-9)


@pytest.mark.parametrize("dim_att", [None, 32])
def test_rwkv5_time_mix(oracle, dim_att):
    torch.manual_seed(0)
    mixer = randomised(
        rwkv5.TimeMix(LayerContext(width=C, length=T), head_size=8, dim_att=dim_att, head_size_divisor=3.0)
    )

    def reference(p, x, before, _):
        last, S, outputs = before["x"], [m.T for m in before["S"]], []
        w = torch.exp(-torch.exp(p["time_decay"]))
        for x_t in x:
            mixed = {c: x_t * p[f"time_mix_{c}"][0, 0] + last * (1 - p[f"time_mix_{c}"][0, 0]) for c in "kvrg"}
            named = {"r": "receptance", "k": "key", "v": "value", "g": "gate"}
            r, k, v, g = (p[f"{named[c]}.weight"] @ mixed[c] for c in "rkvg")
            heads = []
            for h, (r_h, k_h, v_h) in enumerate(zip(*(z.view(-1, 8) for z in (r, k, v)), strict=True)):
                kv = torch.outer(v_h, k_h)
                heads.append((S[h] + kv * p["time_faaaa"][h]) @ r_h)
                S[h] = S[h] * w[h] + kv
            y = group_norm(torch.cat(heads) / 3, len(S), p["ln_x.weight"], p["ln_x.bias"], 1e-5)
            outputs.append(p["output.weight"] @ (y * silu(g)))
            last = x_t
        return torch.stack(outputs), {"x": last, "S": torch.stack([m.T for m in S])}

    compare(oracle("rwkv5", "official formulas of x052, step by step"), mixer, reference)


def test_rwkv6_time_mix(oracle):
    torch.manual_seed(0)
    mixer = randomised(
        rwkv6.TimeMix(
            LayerContext(width=C, length=T), head_size=4, dim_att=16, mix_lora=3, decay_lora=2, head_size_divisor=1.0
        )
    )

    def reference(p, x, before, _):
        last, S, outputs = before["x"], [m.T for m in before["S"]], []
        for x_t in x:
            change = last - x_t
            low = torch.tanh((x_t + change * p["time_maa_x"][0, 0]) @ p["time_maa_w1"]).view(5, -1)
            mixed = {
                c: x_t + change * (p[f"time_maa_{c}"][0, 0] + low[slot] @ p["time_maa_w2"][slot])
                for slot, c in enumerate("wkvrg")
            }
            named = {"r": "receptance", "k": "key", "v": "value", "g": "gate"}
            r, k, v, g = (p[f"{named[c]}.weight"] @ mixed[c] for c in "rkvg")
            decay = p["time_decay"][0, 0] + torch.tanh(mixed["w"] @ p["time_decay_w1"]) @ p["time_decay_w2"]
            heads = []
            for h, (r_h, k_h, v_h, d_h) in enumerate(zip(*(z.view(-1, 4) for z in (r, k, v, decay)), strict=True)):
                kv = torch.outer(v_h, k_h)
                heads.append((S[h] + kv * p["time_faaaa"][h]) @ r_h)
                S[h] = S[h] * torch.exp(-torch.exp(d_h)) + kv
            y = group_norm(torch.cat(heads), len(S), p["ln_x.weight"], p["ln_x.bias"], 1e-5)
            outputs.append(p["output.weight"] @ (y * silu(g)))
            last = x_t
        return torch.stack(outputs), {"x": last, "S": torch.stack([m.T for m in S])}

    compare(oracle("rwkv6", "official formulas of x060, step by step"), mixer, reference)


@pytest.mark.parametrize("layer", [0, 1])
def test_rwkv7_time_mix(oracle, layer):
    torch.manual_seed(0)
    context = LayerContext(width=C, length=T, layer=layer, depth=2)
    mixer = randomised(rwkv7.TimeMix(context, head_size=6, decay_lora=5, a_lora=4, v_lora=3, gate_lora=7))

    def reference(p, x, before, v_first):
        last, S, outputs = before["x"], [m.T for m in before["S"]], []
        for t, x_t in enumerate(x):
            r, w, k, v, a, g = (x_t + p[f"x_{c}"][0, 0] * (last - x_t) for c in "rwkvag")
            w = torch.exp(-sigmoid(p["w0"][0, 0] + torch.tanh(w @ p["w1"]) @ p["w2"]) / math.sqrt(math.e))
            a = sigmoid(p["a0"][0, 0] + a @ p["a1"] @ p["a2"])
            g = sigmoid(g @ p["g1"]) @ p["g2"]
            r, k, x_v, v = p["receptance.weight"] @ r, p["key.weight"] @ k, v, p["value.weight"] @ v
            if v_first is not None:
                v = v + (v_first[t] - v) * sigmoid(p["v0"][0, 0] + x_v @ p["v1"] @ p["v2"])
            kk, k = k * p["k_k"][0, 0], k * (1 + (a - 1) * p["k_a"][0, 0])
            heads, bonus = [], []
            for h, (r_h, w_h, k_h, v_h, kk_h, a_h) in enumerate(
                zip(*(z.view(-1, 6) for z in (r, w, k, v, kk, a)), strict=True)
            ):
                kk_h = kk_h / kk_h.square().sum().sqrt()
                S[h] = S[h] * w_h - torch.outer(S[h] @ kk_h, kk_h * a_h) + torch.outer(v_h, k_h)
                heads.append(S[h] @ r_h)
                bonus.append((r_h * k_h * p["r_k"][h]).sum() * v_h)
            y = group_norm(torch.cat(heads), len(S), p["ln_x.weight"], p["ln_x.bias"], 64e-5) + torch.cat(bonus)
            outputs.append(p["output.weight"] @ (y * g))
            last = x_t
        return torch.stack(outputs), {"x": last, "S": torch.stack([m.T for m in S])}

    v_first = torch.randn(2, T, C, dtype=torch.float64, requires_grad=True) if layer else None
    proof = oracle("rwkv7", "rwkv_v7_numpy.py and x070, step by step")
    compare(proof, mixer, reference, v_first=v_first)


@pytest.mark.parametrize(
    ("name", "official", "module", "mix"),
    [("rwkv5", "x052", rwkv5, "time_mix"), ("rwkv6", "x060", rwkv6, "time_maa")],
)
def test_gated_channel_mix(oracle, name, official, module, mix):
    torch.manual_seed(0)
    mixer = randomised(module.ChannelMix(LayerContext(width=C, length=T), expand=2.5))

    def reference(p, x, before, _):
        last, outputs = before["x"], []
        for x_t in x:
            new, old = (last, x_t) if name == "rwkv6" else (x_t, last)
            k, r = (new * p[f"{mix}_{c}"][0, 0] + old * (1 - p[f"{mix}_{c}"][0, 0]) for c in "kr")
            hidden = (p["key.weight"] @ k).clamp(min=0) ** 2
            outputs.append(sigmoid(p["receptance.weight"] @ r) * (p["value.weight"] @ hidden))
            last = x_t
        return torch.stack(outputs), {"x": last}

    compare(oracle(name, f"official formulas of {official}, channel mixing"), mixer, reference)


def test_rwkv7_channel_mix(oracle):
    torch.manual_seed(0)
    mixer = randomised(rwkv7.ChannelMix(LayerContext(width=C, length=T), expand=4.0))

    def reference(p, x, before, _):
        last, outputs = before["x"], []
        for x_t in x:
            k = p["key.weight"] @ (x_t + p["x_k"][0, 0] * (last - x_t))
            outputs.append(p["value.weight"] @ k.clamp(min=0) ** 2)
            last = x_t
        return torch.stack(outputs), {"x": last}

    compare(oracle("rwkv7", "rwkv_v7_numpy.py, channel mixing"), mixer, reference)

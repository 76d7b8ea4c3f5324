"""The layers of RWKV-5, 6 and 7: a recorded official one, and the official formulas step by step in float64.

The references below are written from RWKV-v5/src/model.py (x052, x060), RWKV-v7/train_temp/src/model.py (x070) and
RWKV-v7/rwkv_v7_numpy.py of BlinkDL/RWKV-LM: one row, one step and one head at a time, states values by keys.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures import rwkv5, rwkv6, rwkv7
from zoo.contract import LayerContext

from .compare import leaves, vectors

C, T = 24, 13
NAMES = {"r": "receptance", "k": "key", "v": "value", "g": "gate"}


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
        S = [] if "S" not in before else [m.T for m in before["S"][row]]
        steps = zip([before["x"][row], *x[row, :-1]], x[row], strict=True)
        rows.append(torch.stack(list(reference(p, S, steps, None if v_first is None else v_first[row]))))
        proof.outputs(after["x"][row], x[row, -1], 1e-9)
        for found, want in zip(after.get("S", before["x"][:, :0])[row], S, strict=True):
            proof.outputs(found, want.T, 1e-9)
    inputs = {"x": x} if v_first is None else {"x": x, "v_first": v_first}
    proof.equal(y, torch.stack(rows), {**inputs, **p}, tolerance=1e-9, gradients=1e-9)


def projected(p, mixed):
    return (p[f"{NAMES[c]}.weight"] @ mixed[c] for c in "rkvg")


def by_head(S, *vectors):
    """The parts of each head, and its number."""
    return enumerate(zip(*(x.view(len(S), -1) for x in vectors), strict=True))


def weighed(p, S, r, k, v, w):
    """The outputs of all heads in one step of RWKV-5 and 6; S takes the step in."""
    heads = []
    for h, (r_h, k_h, v_h, w_h) in by_head(S, r, k, v, w):
        kv = torch.outer(v_h, k_h)
        heads.append((S[h] + kv * p["time_faaaa"][h]) @ r_h)
        S[h] = S[h] * w_h + kv
    return torch.cat(heads)


def normed(p, y, heads, eps):
    return F.group_norm(y[None], heads, p["ln_x.weight"], p["ln_x.bias"], eps)[0]


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
    options = {"head_size": 8, "dim_att": dim_att, "head_size_divisor": 3.0}

    def reference(p, S, steps, _):
        w = torch.exp(-torch.exp(p["time_decay"]))
        for last, x in steps:
            mixed = {c: x * p[f"time_mix_{c}"][0, 0] + last * (1 - p[f"time_mix_{c}"][0, 0]) for c in "kvrg"}
            r, k, v, g = projected(p, mixed)
            y = normed(p, weighed(p, S, r, k, v, w) / 3, len(S), 1e-5)
            yield p["output.weight"] @ (y * F.silu(g))

    mixer = randomised(rwkv5.TimeMix(LayerContext(width=C, length=T), **options))
    compare(oracle("rwkv5", "official formulas of x052, step by step"), mixer, reference)


def test_rwkv6_time_mix(oracle):
    torch.manual_seed(0)
    options = {"head_size": 4, "dim_att": 16, "mix_lora": 3, "decay_lora": 2, "head_size_divisor": 1.0}

    def reference(p, S, steps, _):
        for last, x in steps:
            change = last - x
            low = torch.tanh((x + change * p["time_maa_x"][0, 0]) @ p["time_maa_w1"]).view(5, -1)
            mixed = {
                c: x + change * (p[f"time_maa_{c}"][0, 0] + low[slot] @ p["time_maa_w2"][slot])
                for slot, c in enumerate("wkvrg")
            }
            r, k, v, g = projected(p, mixed)
            decay = p["time_decay"][0, 0] + torch.tanh(mixed["w"] @ p["time_decay_w1"]) @ p["time_decay_w2"]
            y = normed(p, weighed(p, S, r, k, v, torch.exp(-torch.exp(decay))), len(S), 1e-5)
            yield p["output.weight"] @ (y * F.silu(g))

    mixer = randomised(rwkv6.TimeMix(LayerContext(width=C, length=T), **options))
    compare(oracle("rwkv6", "official formulas of x060, step by step"), mixer, reference)


@pytest.mark.parametrize("layer", [0, 1])
def test_rwkv7_time_mix(oracle, layer):
    torch.manual_seed(0)
    context = LayerContext(width=C, length=T, layer=layer, depth=2)
    mixer = randomised(rwkv7.TimeMix(context, head_size=6, decay_lora=5, a_lora=4, v_lora=3, gate_lora=7))

    def reference(p, S, steps, v_first):
        for t, (last, x) in enumerate(steps):
            r, w, k, v, a, g = (x + p[f"x_{c}"][0, 0] * (last - x) for c in "rwkvag")
            w = torch.exp(-torch.sigmoid(p["w0"][0, 0] + torch.tanh(w @ p["w1"]) @ p["w2"]) / math.sqrt(math.e))
            a = torch.sigmoid(p["a0"][0, 0] + a @ p["a1"] @ p["a2"])
            g = torch.sigmoid(g @ p["g1"]) @ p["g2"]
            r, k, x_v, v = p["receptance.weight"] @ r, p["key.weight"] @ k, v, p["value.weight"] @ v
            if v_first is not None:
                v = v + (v_first[t] - v) * torch.sigmoid(p["v0"][0, 0] + x_v @ p["v1"] @ p["v2"])
            kk, k = k * p["k_k"][0, 0], k * (1 + (a - 1) * p["k_a"][0, 0])
            heads, bonus = [], []
            for h, (r_h, w_h, k_h, v_h, kk_h, a_h) in by_head(S, r, w, k, v, kk, a):
                kk_h = kk_h / kk_h.square().sum().sqrt()
                S[h] = S[h] * w_h - torch.outer(S[h] @ kk_h, kk_h * a_h) + torch.outer(v_h, k_h)
                heads.append(S[h] @ r_h)
                bonus.append((r_h * k_h * p["r_k"][h]).sum() * v_h)
            yield p["output.weight"] @ ((normed(p, torch.cat(heads), len(S), 64e-5) + torch.cat(bonus)) * g)

    v_first = vectors(2, T, C) if layer else None
    proof = oracle("rwkv7", "rwkv_v7_numpy.py and x070, step by step")
    compare(proof, mixer, reference, v_first=v_first)


@pytest.mark.parametrize(
    ("name", "official", "module", "mix"),
    [("rwkv5", "x052", rwkv5, "time_mix"), ("rwkv6", "x060", rwkv6, "time_maa")],
)
def test_gated_channel_mix(oracle, name, official, module, mix):
    torch.manual_seed(0)
    mixer = randomised(module.ChannelMix(LayerContext(width=C, length=T), expand=2.5))

    def reference(p, _, steps, __):
        for last, x in steps:
            new, old = (last, x) if name == "rwkv6" else (x, last)
            k, r = (new * p[f"{mix}_{c}"][0, 0] + old * (1 - p[f"{mix}_{c}"][0, 0]) for c in "kr")
            hidden = (p["key.weight"] @ k).clamp(min=0) ** 2
            yield torch.sigmoid(p["receptance.weight"] @ r) * (p["value.weight"] @ hidden)

    compare(oracle(name, f"official formulas of {official}, channel mixing"), mixer, reference)


def test_rwkv7_channel_mix(oracle):
    torch.manual_seed(0)
    mixer = randomised(rwkv7.ChannelMix(LayerContext(width=C, length=T), expand=4.0))

    def reference(p, _, steps, __):
        for last, x in steps:
            k = p["key.weight"] @ (x + p["x_k"][0, 0] * (last - x))
            yield p["value.weight"] @ k.clamp(min=0) ** 2

    compare(oracle("rwkv7", "rwkv_v7_numpy.py, channel mixing"), mixer, reference)

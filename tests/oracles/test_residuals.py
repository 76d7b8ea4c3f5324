"""Residual types against stacks put together from torch's own attention and the equations of each paper."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from zoo.architectures.bilinear_attention import BilinearAttention
from zoo.contract import Batch, LayerContext, Shape

from .compare import copies, drawn, leaves, shaken, vectors

V, D, N, H, T, B = 11, 16, 3, 4, 9, 2


def ours(name, **options):
    torch.manual_seed(0)
    shape = Shape(length=T, vocab=V, outputs=V, width=D, depth=N)
    return shaken(zoo.build(name, "lm", shape=shape, heads=H, **options)).eval()


class Reference:
    """A whole language model from our parameters by name, through torch's functions only."""

    def __init__(self, model):
        self.p = copies(model)
        self.i = -1

    def at(self, name):
        return self.p[f"backbone.sublayers.{self.i}.{name}"]

    def norm(self, x, name="norm"):
        return F.layer_norm(x, (D,), self.at(f"{name}.weight"), self.at(f"{name}.bias"))

    def final(self, x):
        return F.layer_norm(x, (D,), self.p["backbone.norm.weight"], self.p["backbone.norm.bias"])

    def attention(self, x, at="inner."):
        mask = torch.ones(T, T, dtype=torch.bool).triu(1)
        x = x.transpose(0, 1)
        into, out = ((self.at(f"{at}{name}.weight"), self.at(f"{at}{name}.bias")) for name in ("qkv", "out"))
        y, _ = F.multi_head_attention_forward(
            x, x, x, D, H, *into, None, None, False, 0.0, *out, attn_mask=mask, need_weights=False
        )
        return y.transpose(0, 1)

    def mlp(self, x, at="inner."):
        hidden = F.gelu(F.linear(x, self.at(f"{at}up.weight"), self.at(f"{at}up.bias")))
        return F.linear(hidden, self.at(f"{at}down.weight"), self.at(f"{at}down.bias"))

    def branches(self):
        """f and g of each block in turn, each with its own parameters in place."""
        for _ in range(N):
            for f in (self.attention, self.mlp):
                self.i += 1
                yield f

    def run(self, ids, stack):
        x = F.embedding(ids, self.p["embedding.table.weight"]) + self.p["embedding.positions.table"][:T]
        return F.linear(stack(self, x), self.p["head.weight"])


def post_ln(r, x):
    for f in r.branches():
        x = r.norm(x + f(x))
    return x


def pre_ln(r, x):
    for f in r.branches():
        x = x + f(r.norm(x))
    return r.final(x)


def sandwich_ln(r, x):
    for f in r.branches():
        x = x + r.norm(f(r.norm(x)), "norm_out")
    return r.final(x)


def deepnorm(r, x):
    for f in r.branches():
        x = r.norm((2 * N) ** 0.25 * x + f(x))
    return x


def residual_dual(r, x):
    dual = x
    for f in r.branches():
        y = f(x)
        x, dual = r.norm(x + y), dual + y
    return x + r.final(dual)


def rezero(r, x):
    for f in r.branches():
        x = x + r.at("a") * f(x)
    return x


def parallel_block(r, x):
    for _ in range(N):
        r.i += 1
        z = r.norm(x)
        x = x + r.attention(z, "inner.parts.0.") + r.mlp(z, "inner.parts.1.")
    return r.final(x)


@pytest.mark.parametrize("stack", [post_ln, pre_ln, sandwich_ln, deepnorm, residual_dual, rezero, parallel_block])
def test_residual(oracle, stack):
    model = ours(stack.__name__)
    reference, ids = Reference(model), torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))
    proof = oracle(stack.__name__, "torch.nn.functional.multi_head_attention_forward in the paper's residual type")
    proof.equal(model(Batch(inputs=ids)), reference.run(ids, stack), leaves(model), reference.p)


@pytest.mark.parametrize(("name", "first"), [("post_ln", False), ("pre_ln", True)])
def test_torch_encoder(oracle, name, first):
    """As an encoder, against nn.TransformerEncoder, with padding."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(D, H, 4 * D, dropout=0, activation="gelu", batch_first=True, norm_first=first)
    norm = nn.LayerNorm(D) if first else None
    theirs = drawn(nn.TransformerEncoder(layer, N, norm=norm, enable_nested_tensor=False), 0.3)
    shape = Shape(length=T, vocab=V, outputs=V, width=D, depth=N)
    backbone = zoo.build(name, "classify", shape=shape, heads=H).backbone
    names = {
        "self_attn.in_proj_weight": "0.inner.qkv.weight", "self_attn.in_proj_bias": "0.inner.qkv.bias",
        "self_attn.out_proj.weight": "0.inner.out.weight", "self_attn.out_proj.bias": "0.inner.out.bias",
        "norm1.weight": "0.norm.weight", "norm1.bias": "0.norm.bias",
        "linear1.weight": "1.inner.up.weight", "linear1.bias": "1.inner.up.bias",
        "linear2.weight": "1.inner.down.weight", "linear2.bias": "1.inner.down.bias",
        "norm2.weight": "1.norm.weight", "norm2.bias": "1.norm.bias",
    }  # fmt: skip

    def renamed(values):
        found = {}
        for own, value in values.items():
            if not own.startswith("norm."):
                _, block, rest = own.split(".", 2)
                sublayer, _, inside = names[rest].partition(".")
                own = f"sublayers.{2 * int(block) + int(sublayer)}.{inside}"
            found[own] = value
        return found

    valid, proof = torch.arange(T) < torch.tensor([[T], [4]]), oracle(name, "torch.nn.TransformerEncoder")
    call = partial(theirs, src_key_padding_mask=~valid)
    proof.layers(backbone, theirs, vectors(B, T, D), call, renamed=renamed, mask=valid)


def test_bilinear_form_of_attention(oracle):
    """With W_h = W_Q W_Kᵀ √(D/d) it is torch's multi-head attention."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(D, H, bias=False, batch_first=True).double()
    mixer = BilinearAttention(LayerContext(width=D, length=T), heads=H).double()
    q, k, v = (w.view(H, D // H, D) for w in theirs.in_proj_weight.detach().chunk(3))
    merged = torch.einsum("hdi,hdj->hij", q, k) * (D / (D // H)) ** 0.5  # x_i W_ij x_j
    weights = {
        "form": merged.transpose(1, 2).reshape(H * D, D),
        "value": v.reshape(D, D),
        "out": theirs.out_proj.weight,
    }
    weights = {f"{name}.weight": weight for name, weight in weights.items()}
    mixer.load_state_dict(weights | {f"{name}.bias": torch.zeros(D) for name in ("value", "out")})
    x = vectors(B, T, D)
    want, _ = theirs(x, x, x, attn_mask=torch.ones(T, T, dtype=torch.bool).triu(1), need_weights=False)
    proof = oracle("bilinear_attention", "torch.nn.MultiheadAttention, its W_Q and W_K merged")
    proof.equal(
        mixer(x)[0],
        want,
        {"x": x, "value": mixer.value.weight, "out": mixer.out.weight},
        {"x": x, "value": theirs.in_proj_weight, "out": theirs.out_proj.weight},
        renamed=lambda official: {**official, "value": official["value"][2 * D :]},
    )


def test_gpt_j(oracle):
    """The parallel block with GPT-J's rotations and tanh GELU."""
    hf = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = hf.GPTJConfig(
        vocab_size=V, n_positions=T, n_embd=D, n_layer=N, n_head=H, rotary_dim=2,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    )  # fmt: skip
    config._attn_implementation = "eager"
    theirs = drawn(hf.GPTJModel(config), 0.3).eval()
    model = ours(
        "parallel_block",
        positions={"rope": {"convention": "interleaved", "fraction": 2 / (D // H)}},
        channel={"mlp": {"activation": "gelu_tanh"}},
    )

    def to_ours(p):
        found = {"embedding.table.weight": p["wte.weight"]}
        found |= {f"backbone.norm.{part}": p[f"ln_f.{part}"] for part in ("weight", "bias")}
        for i in range(N):
            at, there = f"backbone.sublayers.{i}", f"h.{i}"
            found[f"{at}.inner.parts.0.qkv.weight"] = torch.cat([p[f"{there}.attn.{x}_proj.weight"] for x in "qkv"])
            found[f"{at}.inner.parts.0.out.weight"] = p[f"{there}.attn.out_proj.weight"]
            for part in ("weight", "bias"):
                found[f"{at}.norm.{part}"] = p[f"{there}.ln_1.{part}"]
                found[f"{at}.inner.parts.1.up.{part}"] = p[f"{there}.mlp.fc_in.{part}"]
                found[f"{at}.inner.parts.1.down.{part}"] = p[f"{there}.mlp.fc_out.{part}"]
        return found

    own, taken = leaves(model), to_ours(theirs.state_dict())
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(taken[name]) if name in taken else p.zero_()  # GPT-J's attention has no biases
    ids = torch.randint(V, (B, T))
    y, want = model.encode(ids), theirs(ids).last_hidden_state
    proof = oracle("parallel_block", "transformers GPTJModel (positions: rope, interleaved)")
    proof.equal(y, want, {name: own[name] for name in taken}, leaves(theirs), renamed=to_ours)

"""Whole RWKV models under published weights, the `rwkv` package's inference, and transformers' RWKV-4."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import zoo
from tests.zoo.models import in_pieces, logits
from zoo import Shape, build
from zoo.contract import Batch
from zoo.published import rwkv
from zoo.published.transformers.counterparts import rwkv4_pairs

from .compare import Proof, leaves

TRAINED = Path(__file__).parents[2].parent / "shared" / "data" / "rwkv_tiny"
OPTIONS = {  # none of them a default; the package insists on a width of 3.5 D for nothing
    "rwkv4": {"expand": 2.0},
    "rwkv5": {"head_size": 8, "expand": 3.0},
    "rwkv6": {"head_size": 8, "mix_lora": 5, "decay_lora": 6},
    "rwkv7": {"head_size": 8, "decay_lora": 5, "a_lora": 6, "v_lora": 7, "gate_lora": 9},
}
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7], [2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4, 5, 9, 0]])


def ours(name, *, width, depth, vocab, **options):
    torch.manual_seed(0)
    shape = Shape(length=32, vocab=vocab, outputs=vocab, width=width, depth=depth)
    model = build(name, "lm", shape=shape, **options).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn_like(p) * (0.3 if p.dim() < 2 or p.shape[0] == 1 else p.shape[-1] ** -0.5)
    return model


def whole_and_stepwise(model, tokens):
    """The logits of one pass, and of steps behind a first piece of two."""
    return logits(model, tokens), in_pieces(model, tokens, [2] + [1] * (tokens.shape[1] - 2))[0]


@pytest.mark.parametrize("through", ["zoo", "rwkv"])
@pytest.mark.parametrize(("name", "file"), [("rwkv4", "rwkv-4v0"), ("rwkv5", "rwkv-5v2")])
def test_published_weights(oracle, name, file, through):
    """In our modules; the package gives the same, opened by us."""
    if through == "rwkv":
        pytest.importorskip("rwkv")
    path = TRAINED / f"{file}.safetensors"
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    recorded, model = load_file(path), zoo.load(path, through=through)
    tokens = recorded["expected.prompt"][None]
    assert model.tokenizer.encode('"in') == tokens[0].tolist()
    assert model.built.get("architecture") == (name if through == "zoo" else None)
    book = oracle(name, f"published weights and logits, {file} of RWKV/rwkv.cpp")
    proof = book if through == "zoo" else Proof({})
    for got in whole_and_stepwise(model, tokens):
        proof.outputs(got[0, -1], recorded["expected.logits"])


@pytest.mark.parametrize("version", [4, 5, 6, 7])
def test_rwkv_package(oracle, tmp_path, capsys, version):
    """Opened by us, it prints nothing, leaves the environment alone and stays in its own precision."""
    pytest.importorskip("rwkv")
    name = f"rwkv{version}"
    model, environment = ours(name, width=32, depth=2, vocab=13, **OPTIONS[name]), dict(os.environ)
    peer = zoo.load(rwkv.save(model, tmp_path / "model.pth"), through="rwkv", strategy="cpu fp32")
    want, in_steps = whole_and_stepwise(peer, TOKENS)
    proof = oracle(name, "rwkv 0.8 (PyPI), cpu fp32")
    for got in (*whole_and_stepwise(model, TOKENS), in_steps):
        proof.outputs(got, want)
    assert dict(os.environ) == environment
    assert capsys.readouterr().out == ""
    assert peer.to(torch.float64).extend(TOKENS[:, :0], peer.init_state(2))[0].shape == (2, 0, 13)
    assert {p.dtype for p in peer.parameters()} == {torch.float32}


def test_transformers_rwkv4(oracle):
    transformers = pytest.importorskip("transformers")
    model = ours("rwkv4", width=16, depth=3, vocab=11).double()
    config = transformers.RwkvConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=3, context_length=32, intermediate_size=64
    )
    peer = transformers.RwkvForCausalLM(config).double()
    own, official = leaves(model), leaves(peer)
    names = {pair.ours: pair.theirs[0] for pair in rwkv4_pairs(model)}
    peer.load_state_dict({names[name]: p.reshape(official[names[name]].shape) for name, p in own.items()})
    tokens = torch.randint(11, (2, 9))

    def renamed(gradients):
        return {name: gradients[names[name]].reshape(p.shape) for name, p in own.items()}

    got, want = model(Batch(inputs=tokens)), peer(input_ids=tokens, use_cache=False).logits
    oracle("rwkv4", "transformers, RwkvForCausalLM").equal(got, want, own, official, renamed=renamed)

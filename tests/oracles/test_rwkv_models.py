"""Whole RWKV models under published weights, the `rwkv` package's inference, and transformers' RWKV-4."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import zoo
from tests.zoo.models import in_pieces, logits, rwkv_model
from zoo.contract import Batch
from zoo.published import rwkv
from zoo.published.transformers.counterparts import rwkv4_pairs

from .compare import Proof, leaves

TRAINED = Path(__file__).parents[2].parent / "shared" / "data" / "rwkv_tiny"
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7], [2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4, 5, 9, 0]])


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
    model, environment = rwkv_model(version), dict(os.environ)
    peer = zoo.load(rwkv.save(model, tmp_path / "model.pth"), through="rwkv", strategy="cpu fp32")
    want, in_steps = whole_and_stepwise(peer, TOKENS)
    proof = oracle(f"rwkv{version}", "rwkv 0.8 (PyPI), cpu fp32")
    for got in (*whole_and_stepwise(model, TOKENS), in_steps):
        proof.outputs(got, want)
    assert dict(os.environ) == environment
    assert capsys.readouterr().out == ""
    assert peer.to(torch.float64).extend(TOKENS[:, :0], peer.init_state(2))[0].shape == (2, 0, 13)
    assert {p.dtype for p in peer.parameters()} == {torch.float32}


def test_transformers_rwkv4(oracle):
    transformers = pytest.importorskip("transformers")
    model = rwkv_model(4, width=16, depth=3, vocab=11).double()
    config = transformers.RwkvConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=3, context_length=32, intermediate_size=32
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

"""Whole RWKV models under published weights, the `rwkv` package's inference, and transformers' RWKV-4."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import zoo
from zoo import Shape, build
from zoo.contract import Batch
from zoo.published import rwkv
from zoo.published.rwkv_package import inference

from .compare import leaves

TRAINED = Path(__file__).parents[2].parent / "shared" / "data" / "rwkv_tiny"
OPTIONS = {  # none of them a default; the package insists on a width of 3.5 D for nothing
    "rwkv4": {"expand": 2.0},
    "rwkv5": {"head_size": 8, "expand": 3.0},
    "rwkv6": {"head_size": 8, "mix_lora": 5, "decay_lora": 6},
    "rwkv7": {"head_size": 8, "decay_lora": 5, "a_lora": 6, "v_lora": 7, "gate_lora": 9},
}


def ours(name, *, width, depth, vocab, **options):
    torch.manual_seed(0)
    shape = Shape(length=32, vocab=vocab, outputs=vocab, width=width, depth=depth)
    return build(name, "lm", shape=shape, **options).eval()


def step_by_step(model, tokens):
    state, logits = model.init_state(1), []
    for token in tokens:
        y, state = model.extend(torch.tensor([[token]]), state)
        logits.append(y[0, 0])
    return torch.stack(logits)


@pytest.mark.parametrize(("name", "file"), [("rwkv4", "rwkv-4v0"), ("rwkv5", "rwkv-5v2")])
def test_published_weights(oracle, name, file):
    path = TRAINED / f"{file}.safetensors"
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    recorded, model = load_file(path), zoo.load(path)
    tokens, expected = recorded["expected.prompt"], recorded["expected.logits"]
    assert model.built["architecture"] == name
    proof = oracle(name, f"published weights and logits, {file} of RWKV/rwkv.cpp")
    with torch.no_grad():
        proof.outputs(model(Batch(inputs=tokens[None]))[0, -1], expected)
        proof.outputs(step_by_step(model, tokens.tolist())[-1], expected)


@pytest.mark.parametrize("version", [4, 5, 6, 7])
def test_rwkv_package(oracle, tmp_path, version):
    pytest.importorskip("rwkv")
    name = f"rwkv{version}"
    model = ours(name, width=32, depth=2, vocab=13, **OPTIONS[name])
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn_like(p) * (0.3 if p.dim() < 2 or p.shape[0] == 1 else p.shape[-1] ** -0.5)
    rwkv.save(model, tmp_path / "model.pth")
    peer = inference(version)(str(tmp_path / "model"), "cpu fp32")
    tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7]
    want, _ = peer.forward(list(tokens), None, full_output=True)
    proof = oracle(name, "rwkv 0.8 (PyPI), cpu fp32")
    with torch.no_grad():
        proof.outputs(model(Batch(inputs=torch.tensor([tokens])))[0], want)
        proof.outputs(step_by_step(model, tokens), want)


def test_transformers_rwkv4(oracle):
    transformers = pytest.importorskip("transformers")
    model = ours("rwkv4", width=16, depth=3, vocab=11).double()
    config = transformers.RwkvConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=3, context_length=32, intermediate_size=64
    )
    peer = transformers.RwkvForCausalLM(config).double()
    rename = {
        "emb.": "rwkv.embeddings.",
        "blocks.0.ln0": "rwkv.blocks.0.pre_ln",
        "ln_out": "rwkv.ln_out",
        "blocks.": "rwkv.blocks.",
        ".att.": ".attention.",
        ".ffn.": ".feed_forward.",
        "time_mix_k": "time_mix_key",
        "time_mix_v": "time_mix_value",
        "time_mix_r": "time_mix_receptance",
    }

    def theirs(name):
        for old, new in rename.items():
            if new not in name:
                name = name.replace(old, new)
        return name

    names = {key: theirs(there) for key, there in rwkv.official_names(model).items()}
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn_like(p) * (0.3 if p.dim() < 2 else p.shape[-1] ** -0.5)
    shapes = {key: value.shape for key, value in peer.state_dict().items()}
    peer.load_state_dict({names[key]: p.reshape(shapes[names[key]]) for key, p in model.state_dict().items()})
    tokens = torch.randint(11, (2, 9))
    got, want = model(Batch(inputs=tokens)), peer(input_ids=tokens, use_cache=False).logits
    own = {names[key]: p for key, p in model.named_parameters()}
    proof = oracle("rwkv4", "transformers, RwkvForCausalLM")
    proof.equal(
        got, want, own, leaves(peer), renamed=lambda g: {key: value.reshape(own[key].shape) for key, value in g.items()}
    )

"""Whole RWKV models under published weights, the `rwkv` package's inference, and transformers' RWKV-4."""

import importlib.util
from pathlib import Path

import pytest
import torch

from zoo import Shape, build
from zoo.contract import Batch

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


def official_names(model):
    """Our parameter names → the official ones."""
    fixed = {
        "embedding.table.weight": "emb.weight",
        "embedding.norm.weight": "blocks.0.ln0.weight",
        "embedding.norm.bias": "blocks.0.ln0.bias",
        "backbone.norm.weight": "ln_out.weight",
        "backbone.norm.bias": "ln_out.bias",
        "head.weight": "head.weight",
    }
    names = {}
    for name in model.state_dict():
        if name in fixed:
            names[name] = fixed[name]
            continue
        _, _, index, part, rest = name.split(".", 4)
        block, second = divmod(int(index), 2)
        where = f"ln{1 + second}" if part == "norm" else ("att", "ffn")[second]
        names[name] = f"blocks.{block}.{where}.{rest}"
    return names


def load(model, weights):
    names = official_names(model)
    assert sorted(names.values()) == sorted(weights)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_state_dict({name: weights[there].reshape(shapes[name]) for name, there in names.items()})


def step_by_step(model, tokens):
    state, logits = model.init_state(1), []
    for token in tokens:
        y, state = model.extend(torch.tensor([[token]]), state)
        logits.append(y[0, 0])
    return torch.stack(logits)


@pytest.mark.parametrize(
    ("name", "file", "sizes"),
    [
        ("rwkv4", "rwkv-4v0", {"width": 128, "depth": 4, "expand": 2.0}),
        ("rwkv5", "rwkv-5v2", {"width": 64, "depth": 12, "expand": 4.0, "head_size": 8, "head_size_divisor": 1.0}),
    ],
)
def test_published_weights(oracle, name, file, sizes):
    safetensors = pytest.importorskip("safetensors.torch")
    path = TRAINED / f"{file}.safetensors"
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    weights = safetensors.load_file(path)
    tokens, expected = weights.pop("expected.prompt"), weights.pop("expected.logits")
    for key in weights:
        if key.endswith("time_decay"):  # stored as −exp(w), or exp(−exp(w))
            value = weights[key].double()
            weights[key] = torch.log(-(value if name == "rwkv4" else value.log())).float()
    model = ours(name, vocab=256, **sizes)
    load(model, weights)
    proof = oracle(name, f"published weights and logits, {file} of RWKV/rwkv.cpp")
    with torch.no_grad():
        proof.outputs(model(Batch(inputs=tokens[None]))[0, -1], expected)
        proof.outputs(step_by_step(model, tokens.tolist())[-1], expected)


def inference(monkeypatch, version):
    """The package's model class. It reads its options from the environment when it is imported."""
    found = importlib.util.find_spec("rwkv")
    if found is None:
        pytest.skip("could not import 'rwkv'")
    monkeypatch.setenv("RWKV_JIT_ON", "0")
    monkeypatch.setenv("RWKV_CUDA_ON", "0")
    monkeypatch.setenv("RWKV_V7_ON", "1" if version == 7 else "0")
    where = Path(found.submodule_search_locations[0]) / "model.py"
    spec = importlib.util.spec_from_file_location(f"rwkv_model_{version}", where)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, spec.name, module)
    spec.loader.exec_module(module)
    return module.RWKV


@pytest.mark.parametrize("version", [4, 5, 6, 7])
def test_rwkv_package(oracle, tmp_path, monkeypatch, version):
    name = f"rwkv{version}"
    model = ours(name, width=32, depth=2, vocab=13, **OPTIONS[name])
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn_like(p) * (0.3 if p.dim() < 2 or p.shape[0] == 1 else p.shape[-1] ** -0.5)
    names = official_names(model)
    weights = {names[key]: value.clone() for key, value in model.state_dict().items()}
    if version == 7:  # parameters the official first layer has and does not use
        weights |= {f"blocks.0.att.v{i}": torch.zeros(1, 1, 1) for i in range(3)}
    torch.save(dict(sorted(weights.items(), key=lambda item: "ln_x" not in item[0])), tmp_path / "model.pth")
    peer = inference(monkeypatch, version)(str(tmp_path / "model"), "cpu fp32")
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

    names = {key: theirs(there) for key, there in official_names(model).items()}
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn_like(p) * (0.3 if p.dim() < 2 else p.shape[-1] ** -0.5)
    shapes = {key: value.shape for key, value in peer.state_dict().items()}
    peer.load_state_dict({names[key]: p.reshape(shapes[names[key]]) for key, p in model.state_dict().items()})
    tokens = torch.randint(11, (2, 9))
    got, want = model(Batch(inputs=tokens)), peer(input_ids=tokens, use_cache=False).logits
    proof = oracle("rwkv4", "transformers, RwkvForCausalLM")
    proof.outputs(got, want)
    weights = torch.randn_like(want)
    (want * weights).sum().backward()
    (got * weights).sum().backward()
    gradients = {names[key]: p.grad for key, p in model.named_parameters()}
    wanted = {key: p.grad for key, p in peer.named_parameters()}
    proof.gradients(gradients, {key: wanted[key].reshape(gradients[key].shape) for key in wanted})

"""RWKV checkpoints written and read again, by others too, and refused; tests/oracles/test_rwkv_models.py runs them."""

import importlib.util
import sys

import pytest
import torch
from safetensors.torch import save_file

import zoo
from tests.zoo.models import RWKV, close, logits, refusal, refused, rwkv_model
from zoo.contract import Shape
from zoo.published import rwkv, rwkv_package

VERSIONS = list(RWKV)
PACKAGE = importlib.util.find_spec("rwkv") is not None


def official(model, dtype=torch.float32):
    """Its weights as the official code names them."""
    names = rwkv.official_names(model)
    return {names[name]: value.to(dtype).clone() for name, value in model.state_dict().items()}


TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("version", VERSIONS)
def test_saved_and_loaded(version, suffix, tmp_path):
    model = rwkv_model(version)
    loaded = zoo.load(rwkv.save(model, tmp_path / "new" / f"model{suffix}"))
    assert loaded.built["architecture"] == f"rwkv{version}"
    assert {**loaded.built["options"], **RWKV[version]} == loaded.built["options"]
    assert not loaded.training
    assert loaded.tokenizer is None
    assert torch.equal(logits(loaded, TOKENS), logits(model, TOKENS))
    again = zoo.load(zoo.save(loaded, tmp_path / "folder"))
    assert torch.equal(logits(again, TOKENS), logits(model, TOKENS))


@pytest.mark.parametrize("version", VERSIONS)
def test_written_by_others(version, tmp_path):
    """Half precision, axes of length 1 here and not there, transposed factors, tensors of somebody else."""
    model = rwkv_model(version)
    weights = official(model, torch.bfloat16)
    for name, value in weights.items():
        if value.dim() == 1 and ".att.time_" in name:
            weights[name] = value[None, None]
        elif value.dim() > 1 and min(value.shape) == 1:
            weights[name] = value.squeeze()
        elif version > 5 and name.partition(".att.")[2] in rwkv.FACTORS[version]:
            weights[name] = value.mT
    path = tmp_path / "model.pth"
    if version == 7:
        weights["blocks.0.att.v0"] = torch.zeros(1, 1, 1)
    torch.save({**weights, "expected.logits": torch.zeros(3)}, path)
    loaded = zoo.load(path, length=77)
    assert loaded.shape.length == 77
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    close(logits(loaded, TOKENS), logits(model.bfloat16().float(), TOKENS), 1e-5)
    if PACKAGE:
        close(logits(zoo.load(path, through="rwkv", strategy="cpu fp32"), TOKENS), logits(loaded, TOKENS), 1e-5)


def as_rwkv_cpp(model):
    """RWKV-7 as rwkv.cpp's conversion has it: x_r … x_g in one tensor, factors transposed, no axes of length 1."""
    joined = {f"blocks.{i}.att.x_rwkvag": [] for i in range(model.shape.depth)}
    weights = {}
    for name, value in official(model).items():
        prefix, _, kind = name.rpartition(".x_")
        if prefix.endswith(".att"):
            joined[f"{prefix}.x_rwkvag"].append(("rwkvag".index(kind), value))
        else:
            value = value.mT if name.partition(".att.")[2] in rwkv.FACTORS[7] else value.squeeze()
            weights[name] = value.contiguous()
    return weights | {name: torch.cat([vector for _, vector in sorted(parts)]) for name, parts in joined.items()}


def test_joined_shift_vectors(tmp_path):
    model = rwkv_model(7)
    weights = as_rwkv_cpp(model)
    assert weights["blocks.0.att.x_rwkvag"].shape == (6, 1, 32)
    save_file(weights, tmp_path / "model.safetensors")
    assert torch.equal(logits(zoo.load(tmp_path / "model.safetensors"), TOKENS), logits(model, TOKENS))
    weights["blocks.1.att.x_rwkvag"] = weights["blocks.1.att.x_rwkvag"][:5]
    refuse(weights, tmp_path / "model.pth", "blocks.1.att.x_rwkvag has the shape (5, 1, 32)")


@pytest.mark.parametrize("version", [5, 6, 7])
def test_another_eps(version, tmp_path):
    """In the weights where it is saved; by the option where it is loaded, also through the package."""
    model = rwkv_model(version, head_size_divisor=1.5, depth=1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("value.weight"):
                p *= 0.05  # so small a y that eps matters
    want = logits(model, TOKENS)
    saved = rwkv.save(model, tmp_path / "saved.pth")
    torch.save(official(model), tmp_path / "raw.pth")
    close(logits(zoo.load(saved), TOKENS), want, 1e-5)
    close(logits(zoo.load(tmp_path / "raw.pth", head_size_divisor=1.5), TOKENS), want, 1e-5)
    assert (logits(zoo.load(tmp_path / "raw.pth"), TOKENS) - want).abs().max() > 0.01 * want.abs().max()
    if PACKAGE:
        for path, options in ((saved, {}), (tmp_path / "raw.pth", {"head_size_divisor": 1.5})):
            close(logits(zoo.load(path, through="rwkv", strategy="cpu fp32", **options), TOKENS), want, 1e-5)


def test_heads_of_another_width(tmp_path):
    model = rwkv_model(5, width=24, depth=1, head_size=4, dim_att=16)
    path = rwkv.save(model, tmp_path / "model.pth")
    assert torch.equal(logits(zoo.load(path), TOKENS), logits(model, TOKENS))
    if PACKAGE:
        refused(path, "no dim_att", through="rwkv")


@pytest.mark.parametrize("version", [4, 5])
def test_applied_decays(version, tmp_path):
    model = rwkv_model(version, depth=1, **({"head_size_divisor": 1.0} if version == 5 else {}))
    raw = {name: value.squeeze() for name, value in official(model).items()}
    applied = {
        name: (-value.exp() if version == 4 else (-value.exp()).exp()[..., None]) if "time_decay" in name else value
        for name, value in raw.items()
    }
    save_file(applied, tmp_path / "applied.safetensors")
    torch.save(applied, tmp_path / "applied.pth")
    want = logits(model, TOKENS)
    close(logits(zoo.load(tmp_path / "applied.safetensors"), TOKENS), want, 1e-5)
    close(logits(zoo.load(tmp_path / "applied.pth", decay="applied"), TOKENS), want, 1e-5)
    assert (logits(zoo.load(tmp_path / "applied.pth"), TOKENS) - want).abs().max() > 0.01 * want.abs().max()
    save_file(raw, tmp_path / "raw.safetensors")
    assert not rwkv.holds_applied(raw, version)
    refused(tmp_path / "raw.safetensors", "blocks.0.att.time_decay is not", decay="applied")


def test_raw_decays_that_are_all_negative(tmp_path):
    model = rwkv_model(4)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "time_decay" in name:
                p.copy_(-p.abs() - 0.1)
    saved = rwkv.save(model, tmp_path / "model.safetensors")
    assert torch.equal(logits(zoo.load(saved), TOKENS), logits(model, TOKENS))


def test_tokenizers_by_the_size_of_the_vocabulary(tmp_path, monkeypatch):
    def tokenizer(vocab):
        return zoo.load(rwkv.save(rwkv_model(4, vocab=vocab, width=2, depth=1), tmp_path / "model.pth")).tokenizer

    assert tokenizer(256).kind == "bytes"
    assert tokenizer(40) is None
    refused(tmp_path / "model.pth", "the model has 40 tokens, and its tokenizer (bytes) 256", tokenizer="bytes")
    if PACKAGE:
        monkeypatch.setattr("rwkv.rwkv_tokenizer.TRIE_TOKENIZER", lambda file: None)  # takes seconds to make
        assert tokenizer(65_536).kind == "rwkv_world"


def refuse(weights, path, words):
    torch.save(weights, path)
    refused(path, f"{path}: ", words, kind="rwkv")


@pytest.mark.parametrize("version", VERSIONS)
def test_incomplete(version, tmp_path):
    weights, path = official(rwkv_model(version)), tmp_path / "model.pth"
    for name in [name for name in weights if name.startswith("blocks.0.att.") and "gate" not in name][::4]:
        refuse({key: value for key, value in weights.items() if key != name}, path, f"lacks {name}")
    rest = {key: value for key, value in weights.items() if not key.startswith("blocks.0.")}
    refuse(rest, path, "it has a block 1, but no block 0")
    for name, value, words in (
        ("blocks.1.att.time_state", torch.zeros(3), "has also blocks.1.att.time_state"),
        ("head_q.weight", torch.zeros(3), "has also head_q.weight"),
        ("blocks.1.att.key.weight", torch.zeros(32, 31), "has the shape (32, 31), where this model has (32, 32)"),
        ("emb.weight", torch.zeros(32), "emb.weight has the shape (32,)"),
        ("emb.weight", torch.zeros(12, 32), "head.weight has the shape (13, 32)"),
    ):
        refuse({**weights, name: value}, path, words)


@pytest.mark.parametrize(
    ("version", "drop", "found"),
    [
        (5, "gate", "RWKV-5.0"),
        (5, "time_decay", "RWKV-5.1"),
        (6, "gate", "a variant of RWKV-6 without its gate (x060a, x060b)"),
        (4, "att", "no RWKV"),
    ],
)
def test_unknown_versions(version, drop, found, tmp_path):
    weights = {name: value for name, value in official(rwkv_model(version)).items() if f".{drop}" not in name}
    if drop == "time_decay":
        weights |= {f"blocks.{i}.att.time_decay": torch.zeros(4) for i in range(2)}
    refuse(weights, tmp_path / "model.pth", f"this is {found}; the zoo has RWKV-4, 5.2, 6 and 7")


def test_options_that_do_not_fit(tmp_path):
    path = rwkv.save(rwkv_model(4), tmp_path / "model.pth")
    for options, words in (
        ({"through": "rwvk"}, "through 'rwvk' is not one of zoo, rwkv; did you mean 'rwkv'?"),
        ({"decay": "none"}, "decay 'none' is not one of auto, raw, applied"),
        ({"head_size_divisor": 8.0}, "RWKV-4 has no ln_x"),
        ({"strategy": "cpu fp32"}, "is for through='rwkv'"),
        ({"through": "rwkv", "strategy": "tpu fp8"}, "a device and a precision"),
        ({"length": 0}, "length"),
    ):
        refused(path, words, **options)
    refused(rwkv.save(rwkv_model(7), tmp_path / "seven.pth"), "RWKV-7 follows the data", decay="applied")
    shape = Shape(length=8, vocab=5, outputs=6, width=8)
    (tmp_path / "file").write_text("")
    for model, where, words in (
        (zoo.build("pre_ln", "lm", shape=shape), path, "pre_ln as lm has no RWKV checkpoint"),
        (zoo.build("rwkv4", "lm", shape=shape), path, "the tokens it reads: 5, not 6"),
        (rwkv_model(4), tmp_path / "model.bin", "is a .pth or a .safetensors"),
        (rwkv_model(4), tmp_path / "file" / "model.pth", "cannot be written"),
    ):
        with refusal(words):
            rwkv.save(model, where)


def test_absent_package(tmp_path, monkeypatch):
    path = rwkv.save(rwkv_model(4, vocab=65_536, width=2, depth=1), tmp_path / "model.pth")
    monkeypatch.setitem(sys.modules, "rwkv", None)
    rwkv_package._module.cache_clear()
    assert zoo.load(path).tokenizer is None
    for options in ({"through": "rwkv"}, {"tokenizer": "rwkv_world"}):
        refused(path, "needs rwkv: pip install 'zoobench[rwkv]'", **options)

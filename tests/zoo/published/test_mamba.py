"""Mamba and Mamba-2 checkpoints in our modules, against transformers' and mambapy's models with the same weights."""

import json
import math

import pytest
import torch
from torch import nn

import zoo
from tests.zoo.models import close, logits, randomise, refused, save_words
from zoo.contract import Shape
from zoo.published import files
from zoo.published.mamba import mamba_ssm_pairs

T, V = 21, 29
IDS = torch.arange(2 * T).view(2, T) * 7 % V


def ours(kind, *, tie=False, width=20, **options):
    torch.manual_seed(0)
    sizes = {"mamba": {"d_state": 5, "dt_rank": 3}, "mamba2": {"d_state": 6, "headdim": 4, "ngroups": 2}}[kind]
    shape = Shape(64, V, vocab=V, width=width, depth=3)
    return randomise(zoo.build(kind, shape=shape, tie=tie, **{**sizes, **options}), 0.2)


def mamba_ssm_folder(model, folder, *, drop=(), **config):
    """As mamba-ssm's `save_pretrained`: a pickle of tensors, tied ones under both names."""
    held = model.state_dict()
    theirs = {pair.theirs[0]: held[pair.ours].clone() for pair in mamba_ssm_pairs(model) if pair.theirs[0] not in drop}
    folder.mkdir(exist_ok=True)
    torch.save(theirs, folder / "pytorch_model.bin")
    kind = "Mamba1" if model.built["architecture"] == "mamba" else "Mamba2"
    layer = {key: value for key, value in model.built["options"].items() if key != "tie"}
    described = {"d_model": model.shape.width, "n_layer": 3, "d_intermediate": 0, "attn_layer_idx": []}
    described |= {"vocab_size": V, "pad_vocab_size_multiple": 1, "ssm_cfg": {"layer": kind, **layer}}
    described |= {"rms_norm": True, "residual_in_fp32": True, "fused_add_norm": True}
    described["tie_embeddings"] = model.head.weight is model.embedding.table.weight
    (folder / "config.json").write_text(json.dumps(described | config))
    return folder


def hub_model(kind, **options):
    transformers = pytest.importorskip("transformers")
    common = {"vocab_size": V, "num_hidden_layers": 3, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    torch.manual_seed(0)
    if kind == "mamba":
        sizes = {"hidden_size": 20, "state_size": 5, "use_associative_scan": False}
        return randomise(transformers.MambaForCausalLM(transformers.MambaConfig(**common | sizes | options)), 0.2)
    sizes = {"hidden_size": 20, "state_size": 6, "num_heads": 10, "head_dim": 4, "n_groups": 2, "chunk_size": 8}
    return randomise(transformers.Mamba2ForCausalLM(transformers.Mamba2Config(**common | sizes | options)), 0.2)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mamba", {}),
        ("mamba", {"tie_word_embeddings": False, "conv_kernel": 3, "time_step_rank": 4, "use_bias": True, "expand": 3}),
        ("mamba", {"use_conv_bias": False, "layer_norm_epsilon": 1e-6, "hidden_size": 19}),
        ("mamba2", {}),
        ("mamba2", {"tie_word_embeddings": True, "n_groups": 1, "use_bias": True, "time_step_limit": (0.05, 0.6)}),
        ("mamba2", {"n_groups": 5, "conv_kernel": 2, "use_conv_bias": False, "time_step_limit": (0.1, math.inf)}),
    ],
    ids=str,
)
def test_transformers_folder(kind, options, tmp_path):
    theirs = hub_model(kind, **options)
    theirs.save_pretrained(tmp_path)
    model = zoo.load(tmp_path)
    close(logits(model, IDS), theirs(IDS).logits.detach(), 1e-4)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert (model.built["architecture"], model.shape.length, model.training) == (kind, 2048, False)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mamba", {"width": 19, "expand": 1.4, "d_conv": 2, "bias": True}),
        ("mamba", {"conv_bias": False}),
        ("mamba2", {"D_has_hdim": True, "norm_before_gate": True, "dt_limit": [0.05, 0.5]}),
        ("mamba2", {"rmsnorm": False, "ngroups": 3, "expand": 3, "d_conv": 3, "conv_bias": False, "bias": True}),
    ],
    ids=str,
)
def test_mamba_ssm_folder(kind, options, tie, tmp_path):
    want = ours(kind, tie=tie, **options)
    model = zoo.load(mamba_ssm_folder(want, tmp_path), length=77)
    close(logits(model, IDS), logits(want, IDS), 1e-6)
    assert (model.shape.length, model.head.weight is model.embedding.table.weight) == (77, tie)
    again = zoo.load(zoo.save(model, tmp_path / "zoo"))
    assert torch.equal(logits(again, IDS), logits(model, IDS))


def test_mambapy(tmp_path):
    mambapy = pytest.importorskip("mambapy.mamba")
    config = mambapy.MambaConfig(d_model=20, n_layers=3, d_state=5, d_conv=3, dt_rank=3, bias=True)
    torch.manual_seed(0)
    parts = {"embedding": nn.Embedding(V, 20), "layers": mambapy.Mamba(config).layers}
    theirs = randomise(nn.ModuleDict({**parts, "norm_f": mambapy.RMSNorm(20, config.rms_norm_eps)}), 0.2)
    head = randomise(nn.Linear(20, V, bias=False), 0.2)
    weights = {f"backbone.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({**weights, "lm_head.weight": head.weight.detach()}, tmp_path / "mamba.pth")
    with torch.no_grad():
        x = theirs["embedding"](IDS)
        for layer in theirs["layers"]:
            x = layer(x)
        close(logits(zoo.load(tmp_path / "mamba.pth"), IDS), head(theirs["norm_f"](x)), 1e-4)


@pytest.mark.parametrize(("kind", "options"), [("mamba", {"expand": 1.7}), ("mamba2", {"ngroups": 1})])
def test_without_a_config_shapes_say_it_all(kind, options, tmp_path):
    want = ours(kind, **options)
    folder = mamba_ssm_folder(want, tmp_path)
    (folder / "config.json").unlink()
    close(logits(zoo.load(folder / "pytorch_model.bin"), IDS), logits(want, IDS), 1e-6)


def test_a_tied_head_need_not_be_stored_and_half_precision_is_widened(tmp_path):
    want = ours("mamba", tie=True).bfloat16()
    model = zoo.load(mamba_ssm_folder(want, tmp_path, drop=("lm_head.weight",)))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    close(logits(model, IDS), logits(want.float(), IDS), 1e-6)


def test_the_table_is_padded(tmp_path):
    want = ours("mamba")
    assert zoo.load(mamba_ssm_folder(want, tmp_path, vocab_size=22, pad_vocab_size_multiple=29)).shape.vocab == 29
    folder = mamba_ssm_folder(want, tmp_path, vocab_size=22, pad_vocab_size_multiple=8)
    refused(folder, "embedding.table.weight has the shape (29, 20)")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"d_intermediate": 64}, "d_intermediate"),
        ({"attn_layer_idx": [1]}, "attn_layer_idx"),
        ({"rms_norm": False}, "LayerNorm"),
        ({"ssm_cfg": {"layer": "Mamba3"}}, "'Mamba3' is not supported"),
        ({"ssm_cfg": {"layer": "Mamba2"}}, "its config says mamba2, and its weights are mamba's"),
        ({"ssm_cfg": {"d_ssm": 8}}, "ssm_cfg.d_ssm is not supported"),
        ({"ssm_cfg": {"d_state": 7}}, "A_log has the shape"),
        ({"ssm_cfg": {"d_state": "many"}}, "d_state must be a whole number"),
        ({"ssm_cfg": [1]}, "an invalid value"),
        ({"n_layer": 4}, "lacks backbone.layers.3"),
        ({"n_layer": 2}, "has also backbone.layers.2"),
        ({"d_model": 24}, "has the shape"),
        ({"d_model": "wide"}, "whole number"),
        ({"vocab_size": "all"}, "an invalid value"),
        ({"model_type": "llama"}, "'llama'"),
    ],
    ids=str,
)
def test_configs_that_do_not_fit(config, problem, tmp_path):
    refused(mamba_ssm_folder(ours("mamba"), tmp_path, **config), problem, kind="mamba")


def test_an_empty_list_of_options_is_none(tmp_path):
    zoo.load(mamba_ssm_folder(ours("mamba"), tmp_path, ssm_cfg=[]))


@pytest.mark.parametrize(
    ("kind", "change", "problem"),
    [
        ("mamba", {"layer_norm_epsilon": 1e-4}, "layer_norm_epsilon 0.0001 is not supported"),
        ("mamba2", {"layer_norm_epsilon": 1e-6}, "our mamba2 has 1e-05"),
        ("mamba", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ("mamba2", {"n_groups": 0}, "ngroups 0"),
        ("mamba2", {"n_groups": 3}, "must be a multiple of 6"),
        ("mamba2", {"time_step_limit": 3}, "an invalid value"),
        ("mamba2", {"time_step_limit": ["low", "high"]}, "an invalid value"),
    ],
    ids=str,
)
def test_transformers_configs_that_do_not_fit(kind, change, problem, tmp_path):
    hub_model(kind).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    refused(tmp_path, problem)


def test_weights_that_do_not_fit(tmp_path):
    folder = mamba_ssm_folder(ours("mamba"), tmp_path, drop=("lm_head.weight",))
    refused(folder, "lacks lm_head.weight, and its config does not tie it")
    mamba_ssm_folder(ours("mamba"), tmp_path, drop=("backbone.layers.1.mixer.D",))
    refused(folder, "lacks backbone.layers.1.mixer.D")
    torch.save(files.read(folder) | {"backbone.layers.0.mixer.A_log": torch.zeros(3)}, folder / "pytorch_model.bin")
    refused(folder, "A_log has the shape (3,)")
    refused(mamba_ssm_folder(ours("mamba"), tmp_path), "Shape.length", length=0)


def test_the_tokenizer_beside_the_weights_or_another_one(tmp_path):
    folder = mamba_ssm_folder(ours("mamba"), tmp_path / "model")
    assert zoo.load(folder).tokenizer is None
    save_words(folder / "tokenizer.json", {"?": 0, "a": 1, "b": 2})
    save_words(tmp_path / "tokenizer.json", {"?": 0, "b": 1})
    assert zoo.load(folder).tokenizer.encode("b a") == [2, 1]
    assert zoo.load(folder, tokenizer=tmp_path).tokenizer.encode("b a") == [1, 0]

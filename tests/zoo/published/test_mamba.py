"""Mamba and Mamba-2 checkpoints in our modules, against transformers' and mambapy's models with the same weights."""

import json
import math

import pytest
import torch
from torch import nn

import zoo
from zoo.contract import Batch, Shape
from zoo.published import PretrainedError, files
from zoo.published.mamba import mamba_ssm_pairs
from zoo.published.transformers import counterparts, export

T = 21
IDS = torch.arange(2 * T).view(2, T) * 7 % 29
KINDS = ("mamba", "mamba2")


def randomised(module):
    """Every weight moved, so that none keeps the ones and zeros it starts with."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def run(model, ids=IDS):
    with torch.no_grad():
        return model(Batch(inputs=ids))


def close(got, want, tolerance=1e-4):
    assert got.shape == want.shape
    assert float((got - want).abs().max() / want.abs().max()) < tolerance


def ours(kind, *, tie=False, width=20, **options):
    torch.manual_seed(0)
    sizes = {"mamba": {"d_state": 5, "dt_rank": 3}, "mamba2": {"d_state": 6, "headdim": 4, "ngroups": 2}}[kind]
    shape = Shape(64, 29, vocab=29, width=width, depth=3)
    return randomised(zoo.build(kind, shape=shape, tie=tie, **{**sizes, **options}))


def mamba_ssm_folder(model, folder, *, drop=(), **config):
    """As mamba-ssm's `save_pretrained`: a pickle of tensors, tied ones under both names."""
    held = model.state_dict()
    theirs = {pair.theirs[0]: held[pair.ours].clone() for pair in mamba_ssm_pairs(model) if pair.theirs[0] not in drop}
    folder.mkdir(exist_ok=True)
    torch.save(theirs, folder / "pytorch_model.bin")
    kind = "Mamba1" if model.built["architecture"] == "mamba" else "Mamba2"
    layer = {key: value for key, value in model.built["options"].items() if key != "tie"}
    told = {
        "d_model": model.shape.width,
        "n_layer": 3,
        "d_intermediate": 0,
        "vocab_size": 29,
        "attn_layer_idx": [],
        "ssm_cfg": {"layer": kind, **layer},
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 1,
        "tie_embeddings": model.head.weight is model.embedding.table.weight,
    }
    (folder / "config.json").write_text(json.dumps(told | config))
    return folder


def hub_model(kind, **options):
    transformers = pytest.importorskip("transformers")
    common = {"vocab_size": 29, "num_hidden_layers": 3, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    torch.manual_seed(0)
    if kind == "mamba":
        sizes = {"hidden_size": 20, "state_size": 5, "use_associative_scan": False}
        return randomised(transformers.MambaForCausalLM(transformers.MambaConfig(**common | sizes | options)))
    sizes = {"hidden_size": 20, "state_size": 6, "num_heads": 10, "head_dim": 4, "n_groups": 2, "chunk_size": 8}
    return randomised(transformers.Mamba2ForCausalLM(transformers.Mamba2Config(**common | sizes | options)))


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
    with torch.no_grad():
        close(run(model), theirs(IDS).logits)
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
    close(run(model), run(want), 1e-6)
    assert (model.shape.length, model.head.weight is model.embedding.table.weight) == (77, tie)
    again = zoo.load(zoo.save(model, tmp_path / "zoo"))
    assert torch.equal(run(again), run(model))


def test_mambapy(tmp_path):
    mambapy = pytest.importorskip("mambapy.mamba")
    config = mambapy.MambaConfig(d_model=20, n_layers=3, d_state=5, d_conv=3, dt_rank=3, bias=True)
    torch.manual_seed(0)
    theirs = nn.ModuleDict(
        {
            "embedding": nn.Embedding(29, 20),
            "layers": mambapy.Mamba(config).layers,
            "norm_f": mambapy.RMSNorm(20, config.rms_norm_eps),
        }
    )
    head = randomised(nn.Linear(20, 29, bias=False))
    randomised(theirs)
    weights = {f"backbone.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({**weights, "lm_head.weight": head.weight.detach()}, tmp_path / "mamba.pth")
    with torch.no_grad():
        x = theirs["embedding"](IDS)
        for layer in theirs["layers"]:
            x = layer(x)
        close(run(zoo.load(tmp_path / "mamba.pth")), head(theirs["norm_f"](x)))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_config_shapes_say_it_all(kind, tmp_path):
    want = ours(kind, width=20, **({"ngroups": 1} if kind == "mamba2" else {"expand": 1.7}))
    folder = mamba_ssm_folder(want, tmp_path)
    (folder / "config.json").unlink()
    close(run(zoo.load(folder / "pytorch_model.bin")), run(want), 1e-6)


def test_a_tied_head_need_not_be_stored_and_half_precision_is_widened(tmp_path):
    want = ours("mamba", tie=True).bfloat16()
    model = zoo.load(mamba_ssm_folder(want, tmp_path, drop=("lm_head.weight",)))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    close(run(model), run(want.float()), 1e-6)


def test_the_table_is_padded(tmp_path):
    want = ours("mamba")
    assert zoo.load(mamba_ssm_folder(want, tmp_path, vocab_size=22, pad_vocab_size_multiple=29)).shape.vocab == 29
    with pytest.raises(PretrainedError, match=r"embedding.table.weight has the shape \(29, 20\)"):
        zoo.load(mamba_ssm_folder(want, tmp_path, vocab_size=22, pad_vocab_size_multiple=8))


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_continues(kind, tmp_path):
    model = zoo.load(mamba_ssm_folder(ours(kind), tmp_path))
    with torch.no_grad():
        first, state = model.extend(IDS[:, :9], model.init_state(2))
        rest, _ = model.extend(IDS[:, 9:], state)
    close(torch.cat([first, rest], 1), run(model), 1e-5)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mamba", {"tie": True, "width": 19, "expand": 3.0}),
        ("mamba", {"norm": "rms", "d_conv": 3, "bias": True, "conv_bias": False}),
        ("mamba2", {"tie": True, "dt_limit": (0.05, 0.5), "expand": 4}),
        ("mamba2", {"ngroups": 5, "bias": True, "conv_bias": False, "d_conv": 2}),
    ],
    ids=str,
)
def test_into_transformers(kind, options, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = ours(kind, **options)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(export.save(model, tmp_path)).eval()
    assert type(theirs).__name__ == f"{kind.capitalize()}ForCausalLM"
    with torch.no_grad():
        close(theirs(IDS).logits, run(model))
    back = zoo.load(tmp_path)
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "options", "problem"),
    [
        ("mamba", {"expand": 1.7}, "whole multiple"),
        ("mamba", {"norm": "layer"}, "no norm layer"),
        ("mamba", {"channel": "mlp"}, "no channel mlp; only none"),
        ("mamba2", {"norm": "rms"}, "no norm rms"),
        ("mamba2", {"D_has_hdim": True}, "D_has_hdim"),
        ("mamba2", {"rmsnorm": False}, "rmsnorm"),
        ("mamba2", {"norm_before_gate": True}, "norm_before_gate"),
        ("mamba2", {"norm_groups": 1}, "norm_groups"),
    ],
    ids=str,
)
def test_what_transformers_does_not_have(kind, options, problem):
    model = ours(kind, **options)
    with pytest.raises(PretrainedError, match=problem):
        counterparts.of(model).config(model)


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
        ({"ssm_cfg": []}, None),
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
    folder = mamba_ssm_folder(ours("mamba"), tmp_path, **config)
    if problem is None:
        zoo.load(folder)
        return
    with pytest.raises(PretrainedError, match=problem) as caught:
        zoo.load(folder, kind="mamba")
    assert "\n" not in str(caught.value)


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
    with pytest.raises(PretrainedError, match=problem):
        zoo.load(tmp_path)


def test_weights_that_do_not_fit(tmp_path):
    folder = mamba_ssm_folder(ours("mamba"), tmp_path, drop=("lm_head.weight",))
    with pytest.raises(PretrainedError, match=r"lacks lm_head.weight, and its config does not tie it"):
        zoo.load(folder)
    folder = mamba_ssm_folder(ours("mamba"), tmp_path, drop=("backbone.layers.1.mixer.D",))
    with pytest.raises(PretrainedError, match=r"lacks backbone.layers.1.mixer.D"):
        zoo.load(folder)
    weights = files.read(folder) | {"backbone.layers.0.mixer.A_log": torch.zeros(3)}
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(PretrainedError, match=r"A_log has the shape \(3,\)"):
        zoo.load(folder)
    with pytest.raises(PretrainedError, match=r"Shape\.length"):
        zoo.load(mamba_ssm_folder(ours("mamba"), tmp_path), length=0)


def word_level(words, added=()):
    tokens = pytest.importorskip("tokenizers")
    made = tokens.Tokenizer(tokens.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    made.pre_tokenizer = tokens.pre_tokenizers.Whitespace()
    made.add_special_tokens(list(added))
    return made


def test_tokenizers(tmp_path):
    folder = mamba_ssm_folder(ours("mamba"), tmp_path / "model")
    assert zoo.load(folder).tokenizer is None
    word_level(["?", "a", "b"], ["<|endoftext|>"]).save(str(folder / "tokenizer.json"))
    found = zoo.load(folder).tokenizer
    assert (found.encode("b a"), found.prefix, found.end, found.vocab) == ([2, 1], 3, 3, 4)
    other = tmp_path / "other.json"
    word_level(["?", "b"]).save(str(other))
    found = zoo.load(folder, tokenizer=other).tokenizer
    assert (found.encode("b a"), found.prefix, found.end) == ([1, 0], 0, None)
    with pytest.raises(PretrainedError, match=r"the model has 29 tokens, and its tokenizer .bytes. 256"):
        zoo.load(folder, tokenizer="bytes")
    other.write_text("{}")
    with pytest.raises(PretrainedError, match="not a tokenizer"):
        zoo.load(folder, tokenizer=str(other))
    with pytest.raises(PretrainedError, match="no such file"):
        zoo.load(folder, tokenizer="./nowhere.json")
    with pytest.raises(PretrainedError, match="no tokenizer"):
        zoo.load(folder, tokenizer=tmp_path)

"""A model of the zoo in a folder: written, read, and refused where it does not fit."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from tests.zoo.models import randomise, refused
from zoo import tokenizers
from zoo.contract import Batch, Shape
from zoo.published import PretrainedError
from zoo.registry import load_plugin

SHAPES = {
    "lm": Shape(length=12, vocab=13, outputs=13, width=16, depth=2),
    "classify": Shape(length=12, features=3, outputs=5, width=16, depth=2),
    "seq2seq": Shape(length=12, vocab=7, outputs=9, target_length=6, width=16, depth=2),
}
MODELS = [
    ("pre_ln", "lm", {"heads": 2, "tie": True}),
    ("rwkv7", "lm", {"head_size": 8}),
    ("mamba2", "lm", {"d_state": 8, "headdim": 8}),
    ("s4d", "classify", {"channel": "none"}),
    ("reformer", "classify", {"heads": 2}),
    ("transformer_2017", "seq2seq", {"heads": 2}),
    ("pre_ln", "lm", {"heads": 2, "positions": {"rope": {"fraction": 0.5}}}),
]


def made(name, role, options):
    torch.manual_seed(1)
    return randomise(zoo.build(name, role, shape=SHAPES[role], **options), 0.1)


def example(role):
    torch.manual_seed(2)
    shape = SHAPES[role]
    tokens = torch.randint(shape.vocab or 2, (2, 12))
    inputs = tokens if shape.vocab else torch.randn(2, 12, shape.features)
    return Batch(inputs=inputs, decoder_inputs=torch.randint(9, (2, 6)) if role == "seq2seq" else None)


@pytest.mark.parametrize(("name", "role", "options"), MODELS, ids=str)
def test_what_is_loaded_computes_the_same(tmp_path, name, role, options):
    model = made(name, role, options)
    state = torch.get_rng_state()
    other = zoo.load(zoo.save(model, tmp_path / "m"))
    assert torch.equal(torch.get_rng_state(), state), "nobody else's random numbers are used up"
    assert torch.equal(other(example(role)), model(example(role)))
    assert (other.role, other.shape, other.built) == (model.role, model.shape, model.built)
    assert sum(p.numel() for p in other.parameters()) == sum(p.numel() for p in model.parameters()), "ties stay tied"


def test_the_tokenizer_comes_along(tmp_path):
    model = made(*MODELS[0])
    model.tokenizer = tokenizers.Characters("abcdefghijklm")
    assert zoo.load(zoo.save(model, tmp_path)).tokenizer.encode("lamb") == [11, 0, 12, 1]


def test_a_plug_in_s_architecture_needs_its_file(tmp_path):
    plugin = tmp_path / "mine_for_folders.py"
    plugin.write_text("import zoo\n@zoo.register()\ndef mine_for_folders():\n    return zoo.recipe('lstm')\n")
    load_plugin(plugin)
    folder = zoo.save(made("mine_for_folders", "lm", {}), tmp_path / "m")
    zoo.architectures._registry.entries.pop("mine_for_folders")
    refused(folder, "name it with --plugin, or plugins=")
    sys.modules.pop("zoobench_plugin_mine_for_folders")
    assert zoo.load(folder, plugins=(str(plugin),)).built["architecture"] == "mine_for_folders"
    assert zoo.load(folder, plugins=str(plugin)).built["architecture"] == "mine_for_folders"


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("weights", "head.weight", None, "it lacks head.weight"),
        ("weights", "more", torch.zeros(1), "it has also more"),
        ("weights", "head.weight", torch.zeros(13, 17), "(13, 17), where this model has (13, 16)"),
        ("shape", "width", 32, "has the shape"),
        ("description", "format", 99, "format 99; this zoobench reads 1"),
        ("description", "role", {}, "zoo.json: role must be lm"),
        ("description", "architecture", ["pre_ln"], "zoo.json: architecture must be a name"),
        ("description", "shape", 3, "zoo.json: shape must be a mapping, got 3"),
        ("shape", "widht", 8, "zoo.json: shape has no option 'widht'; did you mean 'width'"),
        ("options", "headz", 2, "no option 'headz'; did you mean 'heads'"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, part, key, value, words):
    folder = zoo.save(made("pre_ln", "lm", {"heads": 2}), tmp_path)
    description, weights = json.loads((folder / "zoo.json").read_text()), load_file(folder / "model.safetensors")
    {"weights": weights, "description": description, **description}[part][key] = value
    (folder / "zoo.json").write_text(json.dumps(description))
    save_file({name: x for name, x in weights.items() if x is not None}, folder / "model.safetensors")
    refused(folder, words)


def test_a_model_that_nobody_built_is_not_written(tmp_path):
    model = made(*MODELS[0])
    model.built = {}
    with pytest.raises(PretrainedError, match=r"not made by zoo\.build"):
        zoo.save(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()

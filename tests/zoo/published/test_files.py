"""Where weights lie and how they are read: kinds told apart, safetensors first, no code of pickles, clear refusals."""

import json
import pickle
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import save_file

from tests.zoo.models import refusal, refused, save_words
from zoo.published import PretrainedError, files, kind_of, tokenizer_files
from zoo.published.names import Pair, to_ours, to_theirs


def test_safetensors_go_first(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert files.read(tmp_path)["a"] == 1
    assert files.tensor_names(tmp_path) == {"a"}


def test_several_files_with_an_index(tmp_path):
    for name in "ab":
        save_file({name: torch.ones(1)}, tmp_path / f"model-{name}.safetensors")
    index = {"weight_map": {"a": "model-a.safetensors", "b": "model-b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(files.read(tmp_path)) == {"a", "b"}
    (tmp_path / "model-b.safetensors").unlink()
    with pytest.raises(PretrainedError, match=r"names model-b.safetensors, which is not there"):
        files.read(tmp_path)
    for content, problem in (("{", "not readable as JSON"), ("[]", "must hold a mapping"), ("{}", "has no weight_map")):
        (tmp_path / "model.safetensors.index.json").write_text(content)
        with pytest.raises(PretrainedError, match=rf"index.json: {problem}"):
            files.read(tmp_path)


class Harmful:
    def __reduce__(self):
        return (open, ("/dev/null",))


def truncated(write, weights):
    """What writes the beginning of a file."""

    def to(file):
        write(weights, file)
        file.write_bytes(file.read_bytes()[:-50])

    return to


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("w.pth", lambda file: file.write_bytes(pickle.dumps(Harmful())), "could run code"),
        ("w.pth", partial(torch.save, {"a": torch.zeros(1), "b": Harmful()}), "more than tensors, and could run code"),
        ("w.pth", lambda file: file.write_bytes(b"no pickle at all"), "cannot be read as weights"),
        ("w.pth", lambda file: file.write_bytes(b""), "cannot be read as weights"),
        ("w.pth", truncated(torch.save, {"a": torch.zeros(99)}), "cannot be read as weights"),
        ("w.safetensors", truncated(save_file, {"a": torch.zeros(99)}), "damaged or not safetensors"),
        ("w.pth", partial(torch.save, [1, 2]), "no mapping of names to tensors"),
        ("w.pth", partial(torch.save, {"model": 3}), "no mapping of names to tensors"),
    ],
    ids=["code", "code beside tensors", "text", "empty", "cut pth", "cut safetensors", "a list", "a number"],
)
def test_a_file_is_read_for_its_tensors_only(tmp_path, name, write, words, recwarn):
    write(tmp_path / name)
    with refusal(words):
        files.read(tmp_path / name)
    assert not [*recwarn]


def test_a_wrapped_state_dict_is_unwrapped_and_averaged_weights_go_first(tmp_path):
    last = {"state_dict": {"a": torch.zeros(1)}, "epoch": 3}
    torch.save(last, tmp_path / "w.pth")
    assert files.read(tmp_path / "w.pth") == {"a": 0}
    torch.save({**last, "state_dict_ema": {"a": torch.ones(1)}}, tmp_path / "w.pth")
    assert files.read(tmp_path / "w.pth") == {"a": 1}


@pytest.mark.parametrize(
    ("config", "names", "kind"),
    [
        ({"model_type": "mamba"}, [], "mamba"),
        ({"d_model": 8, "ssm_cfg": {}}, [], "mamba"),
        ({"model_type": "gpt2"}, [], "transformers"),
        ({"architecture": "vit", "num_classes": 3}, [], "timm"),
        (None, ["emb.weight", "blocks.0.att.key.weight"], "rwkv"),
        (None, ["backbone.layers.0.mixer.D"], "mamba"),
    ],
)
def test_kinds_are_told_apart(tmp_path, config, names, kind):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    if names:
        save_file({name: torch.zeros(1) for name in names}, tmp_path / "weights.safetensors")
    assert kind_of(str(tmp_path)) == kind
    assert kind_of("timm/anything") == "timm"


@pytest.mark.parametrize(
    ("where", "options", "words"),
    [
        ("./nowhere", {}, "there is no such file or folder"),
        ("nowhere", {}, "there is no such file or folder"),
        (".", {"kind": "zooo"}, "did you mean 'zoo'"),
        ("zoo:nowhere", {"plugin": 1}, "kind zoo has no option 'plugin'; did you mean 'plugins'"),
        ("transformers:x", {"tokenizer": 1}, "no option 'tokenizer'; known: device, dtype, length, through"),
    ],
)
def test_what_cannot_be_found_is_refused(where, options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(where, words, **options)


def test_a_folder_of_something_else(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    refused(tmp_path, "cannot tell what this is; say so with kind=")


def test_the_cache_goes_before_the_hub(monkeypatch, tmp_path):
    hub, asked = pytest.importorskip("huggingface_hub"), []

    def download(repository, *, allow_patterns, local_files_only=False):
        asked.append(local_files_only)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert files.find("hf:org/name") == tmp_path
    assert asked == [True], "what is cached needs no network"
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert files.find("hf:org/name") == tmp_path
    asked.clear()
    (tmp_path / "pytorch_model.bin").unlink()
    files.find("hf:org/name")
    assert asked == [True, False, False], "a snapshot without weights is asked for again, pickles too"


def test_the_hub_s_errors_are_one_line(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    for name, words in (("RepositoryNotFound", "not on the hub"), ("LocalEntryNotFound", "cannot be reached")):
        error = type(f"{name}Error", (Exception,), {})
        monkeypatch.setattr(hub, "snapshot_download", Mock(side_effect=error("a\nlong\nstory")))
        refused("hf:org/name", words)


WORDS = {"?": 0, "a": 1, "b": 2, "<|endoftext|>": 3}


@pytest.mark.parametrize(
    ("content", "config", "edges"),
    [(WORDS, {}, (3, 3)), ({"?": 0, "b": 1}, {}, (0, None)), ({"?": 0, "b": 1}, {"bos_token_id": 1}, (1, None))],
)
def test_a_tokenizer_from_a_file(tmp_path, content, config, edges):
    save_words(tmp_path / "tokenizer.json", content)
    for where in (tmp_path, tmp_path / "tokenizer.json"):
        found = tokenizer_files.load(where, len(content), "model", config)
        assert found.encode("b ?") == [content["b"], 0]
        assert (found.prefix, found.end, found.vocab) == (*edges, len(content))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bytes", r"model: the model has 40 tokens, and its tokenizer \(bytes\) 256"),
        ("wordl", r"no tokenizer 'wordl': .*no such file.*; known: bytes, rwkv_world, a tokenizer.json"),
        ("broken.json", "not a tokenizer"),
        ("empty.json", r"its tokenizer \(empty.json\) 0"),
        (".", r"no tokenizer '\.'"),
    ],
)
def test_tokenizers_that_do_not_fit(tmp_path, monkeypatch, name, words):
    pytest.importorskip("tokenizers")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{}")
    save_words(tmp_path / "empty.json", {})
    with pytest.raises(PretrainedError, match=words):
        tokenizer_files.load(name, 40, "model")


def test_names_both_ways():
    pairs = [Pair("qkv", ("q", "k")), Pair("out", ("o",), transposed=True), Pair("mix", ("m",))]
    theirs = {"q": torch.randn(4, 3), "k": torch.randn(2, 3), "o": torch.randn(3, 5), "m": torch.randn(1, 1, 3)}
    ours = to_ours(pairs, theirs, "w")
    assert {name: tuple(value.shape) for name, value in ours.items()} == {
        "qkv": (6, 3),
        "out": (5, 3),
        "mix": (1, 1, 3),
    }
    back = to_theirs(pairs, {**ours, "mix": ours["mix"].flatten()}, {k: v.shape for k, v in theirs.items()})
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)
    with pytest.raises(PretrainedError, match="it lacks k"):
        to_ours(pairs, {"q": theirs["q"]}, "w")

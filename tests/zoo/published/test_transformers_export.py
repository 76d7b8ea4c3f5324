"""Models of the zoo, written for transformers and opened there: the same logits, and the same tokens for any text."""

import dataclasses
import json
import sys

import pytest
import torch
from click.testing import CliRunner
from hypothesis import assume, given
from hypothesis import strategies as st

import zoo
from harness.commands import main
from tests.zoo.models import byte_pairs, close, logits, refusal
from zoo.generate import generate
from zoo.published.transformers import counterparts, export
from zoo.published.transformers import tokenizer as hf_tokenizer
from zoo.tokenizers import Bytes, Characters, Fast

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

V, T, D, N = 256, 24, 32, 3
MODELS = [
    ("gpt2", {}),
    ("gpt2", {"tie": False, "norm": "layer_eps6", "channel": {"mlp": {"expand": 2.5, "activation": "relu"}}}),
    ("pre_ln", {"dropout": 0.1, "heads": 2}),
    ("pre_ln", {"tie": True, "norm": "layer_eps12"}),
    ("transformer_pp", {}),
    ("transformer_pp", {"kv_heads": 2, "tie": True, "norm": "rms_eps5", "positions": {"rope": {"base": 5e5}}}),
    ("transformer_pp", {"bias": True, "channel": {"glu": {"bias": True, "activation": "gelu", "expand": 3.0}}}),
    ("rwkv4", {}),
    ("rwkv4", {"expand": 2.0, "tie": True}),
    ("mamba", {"tie": True, "width": 19, "expand": 3.0}),
    ("mamba", {"norm": "rms", "d_conv": 3, "bias": True, "conv_bias": False}),
    ("mamba2", {"headdim": 8, "tie": True, "dt_limit": (0.05, 0.5), "expand": 4}),
    ("mamba2", {"headdim": 4, "ngroups": 2, "bias": True, "conv_bias": False, "d_conv": 2}),
]
IDS = torch.randint(V, (3, T), generator=torch.Generator().manual_seed(2))


def made(name, *, vocab=V, role="lm", width=D, **options):
    torch.manual_seed(0)
    shape = zoo.Shape(length=T, vocab=vocab, outputs=vocab, width=width, depth=N)
    model = zoo.build(name, role, shape=shape, **options)
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn_like(p) * (0.3 if p.dim() < 2 else 0.5 * p.shape[-1] ** -0.5)
    return model


@torch.no_grad()
def same_logits(model, folder):
    there = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    close(there(input_ids=IDS).logits, logits(model.eval(), IDS), 1e-5)
    return there


@pytest.mark.parametrize(("name", "options"), MODELS, ids=str)
def test_logits(tmp_path, name, options):
    model = made(name, **options)
    before = torch.get_rng_state()
    assert export.save(model, tmp_path / "there") == tmp_path / "there"
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    there = same_logits(model, tmp_path / "there")
    assert (tmp_path / "there" / "model.safetensors").is_file()
    if name.startswith("mamba"):
        back = zoo.load(tmp_path / "there").state_dict()
        assert all(torch.equal(value, back[name]) for name, value in model.state_dict().items())
    else:
        assert there.config.max_position_embeddings == T


def test_and_back(tmp_path):
    model = made("gpt2").double()
    model.tokenizer = Bytes()
    back = zoo.load(export.save(model, tmp_path), through="zoo").double()
    close(logits(back, IDS), logits(model.eval(), IDS), 1e-5)
    assert back.tokenizer.encode("é\n<|endoftext|>") == list("é\n<|endoftext|>".encode())
    assert (back.tokenizer.prefix, back.tokenizer.vocab) == (10, V)
    assert zoo.load(zoo.save(back, tmp_path / "ours")).tokenizer.encode("<|endoftext|>") == list(b"<|endoftext|>")


def test_generation(tmp_path):
    """Greedy text of theirs is the greedy text of ours."""
    model = made("transformer_pp").eval()
    model.tokenizer = Bytes()
    there = same_logits(model, export.save(model, tmp_path))
    assert (there.generation_config.bos_token_id, there.generation_config.eos_token_id) == (10, 255)
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path)("to be\n", return_tensors="pt")
    got = there.generate(**tokens, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert got[0, -8:].tolist() == list(generate(model, tokens["input_ids"], tokens=8, temperature=0))


def refused(model, folder, words):
    with refusal(words):
        export.save(model, folder)
    assert not folder.exists()


RETNET = "transformers has no retnet; of the zoo it has gpt2, mamba, mamba2, pre_ln, rwkv4, transformer_pp"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gpt2", {"residual": "post"}, "GPT-2 has no residual type post; only pre"),
        ("gpt2", {"norm": "rms"}, "no norm rms; only layer or layer_eps6 or layer_eps12"),
        ("pre_ln", {"positions": "rope"}, "no positions rope; only learned"),
        ("pre_ln", {"channel": "glu"}, "no channel glu; only mlp"),
        ("pre_ln", {"head_dim": 6}, "GPT-2 has no head_dim"),
        ("transformer_pp", {"gate": True}, "Llama has no gate"),
        ("pre_ln", {"channel": "none"}, "no channel none"),
        ("pre_ln", {"channel": {"mlp": {"bias": False}}}, "no channel mlp without biases"),
        ("pre_ln", {"bias": False}, "transformers has tensors that this model lacks: transformer.h.0.attn.c_attn.bias"),
        ("transformer_pp", {"norm": "layer"}, "Llama has no norm layer"),
        ("transformer_pp", {"positions": {"rope": {"convention": "interleaved"}}}, "convention"),
        ("transformer_pp", {"positions": {"rope": {"fraction": 0.5}}}, "fraction"),
        ("transformer_pp", {"positions": "alibi"}, "no positions alibi"),
        ("rwkv4", {"norm": "layer_eps6"}, "RWKV has no norm layer_eps6"),
        ("mamba", {"expand": 1.7}, "whole multiple"),
        ("mamba", {"norm": "layer"}, "no norm layer"),
        ("mamba", {"channel": "mlp"}, "no channel mlp; only none"),
        ("mamba2", {"headdim": 8, "norm": "rms"}, "no norm rms"),
        ("mamba2", {"headdim": 8, "D_has_hdim": True}, "D_has_hdim"),
        ("mamba2", {"headdim": 8, "rmsnorm": False}, "rmsnorm"),
        ("mamba2", {"headdim": 8, "norm_before_gate": True}, "norm_before_gate"),
        ("mamba2", {"headdim": 8, "ngroups": 2, "norm_groups": 1}, "norm_groups"),
        ("retnet", {}, RETNET),
        ("pre_ln", {"role": "masked"}, "only language models (role lm)"),
    ],
    ids=str,
)
def test_what_transformers_does_not_have(tmp_path, name, options, words):
    refused(made(name, **options), tmp_path / "there", words)


def test_other_refusals(tmp_path, monkeypatch):
    model = made("gpt2")
    there = tmp_path / "there"
    model.tokenizer = Characters("".join(map(chr, range(V + 1))))
    refused(model, there, f"the tokenizer has {V + 1} tokens, and the model {V}")
    model.tokenizer = Characters(["ab"])  # decodes to what it cannot read
    refused(model, there, "transformers cannot have this tokenizer: WordLevel error")
    model.tokenizer = Bytes()
    (tmp_path / "file").write_text("")
    with refusal("cannot be written"):
        export.save(model, tmp_path / "file")
    model.shape = dataclasses.replace(model.shape, outputs=7)
    refused(model, there, "transformers has one vocabulary")
    model.built = {}
    refused(model, there, "was not made by zoo.build")
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(made("gpt2"), there, "pip install 'zoobench[transformers]'")


@pytest.mark.parametrize("fault", ["activation_function", "layer_norm_epsilon", "swapped"])
def test_other_logits_are_not_written(tmp_path, monkeypatch, fault):
    """A counterpart that is wrong in one thing."""
    right = counterparts.COUNTERPARTS["gpt2"]

    def config(model):
        wrong = {"activation_function": "gelu", "layer_norm_epsilon": 1e-3}
        return right.config(model) | {name: value for name, value in wrong.items() if name == fault}

    def pairs(model):
        swapped = {"h.0.": "h.1.", "h.1.": "h.0."} if fault == "swapped" else {}
        found = []
        for pair in right.pairs(model):
            at = pair.theirs[0]
            block = next((block for block in swapped if block in at and "ln_1.bias" in at), "")
            found.append(dataclasses.replace(pair, theirs=(at.replace(block, swapped.get(block, "")),)))
        return found

    monkeypatch.setitem(counterparts.COUNTERPARTS, "gpt2", counterparts.Counterpart(config, pairs))
    refused(made("gpt2"), tmp_path / "there", "transformers gives other logits from these weights")


TEXT = "the cat\n\nsat on\nthe mat"
CHARACTERS = "\t\n !<>|abcdefĊÿ日\U0001f600"


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """By name: a tokenizer as transformers reads it, and ours."""
    plain, named = byte_pairs(TEXT, 300), byte_pairs(TEXT, 300, "<s>", "</s>")
    owners = {
        "bytes": Bytes(),
        "characters": Characters(CHARACTERS),
        "plain": Fast(plain.to_str(), prefix=plain.encode("\n").ids[0]),
        "named": Fast(named.to_str(), prefix=0, end=1),
    }
    folder, found = tmp_path_factory.mktemp("tokenizers"), {}
    for name, own in owners.items():
        hf_tokenizer.save(hf_tokenizer.convert(own, T), folder / name)
        found[name] = transformers.AutoTokenizer.from_pretrained(folder / name), own
    return found


def agree(reader, own, text):
    tokens = own.encode(text)
    assert reader.encode(text) == tokens
    assert reader([text, text])["input_ids"] == [tokens, tokens]
    assert reader.decode(tokens, skip_special_tokens=True) == text
    assert reader.decode(tokens) == text


@given(st.text() | st.text(alphabet="\n\r ĊÿĀ<|endoftext|>'s.,"))
def test_bytes(readers, text):
    agree(*readers["bytes"], text)


@given(st.lists(st.integers(0, 254)))
def test_bytes_that_are_no_text(readers, tokens):
    assert readers["bytes"][0].decode(tokens) == Bytes().decode(tokens)


@given(st.text(alphabet=CHARACTERS))
def test_characters(readers, text):
    agree(*readers["characters"], text)


@given(st.text() | st.text(alphabet="the catsn\n<|endoftext|>Ġġ"))
def test_subwords(readers, text):
    assume("<s>" not in text and "</s>" not in text)  # the special tokens themselves, which decoding leaves out
    for name in ("plain", "named"):
        agree(*readers[name], text)


def test_special_tokens(readers):
    first = readers["plain"][1].prefix
    edges = {"bytes": (10, 255), "characters": (1, 1), "plain": (first, first), "named": (0, 1)}
    found = {name: (reader.bos_token_id, reader.eos_token_id) for name, (reader, _) in readers.items()}
    assert found == edges
    assert readers["named"][0].encode("<s>a", add_special_tokens=False)[0] == 0
    reader, _ = readers["bytes"]
    assert (len(reader), reader.vocab_size, reader.model_max_length) == (256, 256, T)
    with pytest.raises(Exception, match="UNK"):
        readers["characters"][0].encode("z")


def test_command(tmp_path):
    model = made("pre_ln")
    model.tokenizer = Bytes()
    run = zoo.save(model, tmp_path / "run")

    def call(*args):
        return CliRunner().invoke(main, ["export", str(run), *map(str, args)])

    described = json.loads(call(tmp_path / "ours", "--json").output)
    assert described["files"] == ["model.safetensors", "zoo.json"]
    assert call(tmp_path / "there", "--format", "transformers").exit_code == 0
    same_logits(model, tmp_path / "there")
    same_logits(model, export.save(zoo.load(tmp_path / "ours"), tmp_path / "again"))
    zoo.save(made("retnet"), run)
    failed = call(tmp_path / "none", "--format", "transformers")
    assert failed.exit_code == 2
    assert failed.output.count("\n") == 1
    assert "transformers has no retnet" in failed.output
    assert not (tmp_path / "none").exists()

"""Models of the zoo, written for transformers and opened there: the same logits, and the same tokens for any text."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import assume, given
from hypothesis import strategies as st

import zoo
from harness.commands import main
from zoo.contract import Batch
from zoo.published import PretrainedError
from zoo.published.names import Pair
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
    ("transformer_pp", {"channel": {"glu": {"bias": True, "activation": "gelu", "expand": 3.0}}}),
    ("rwkv4", {}),
    ("rwkv4", {"expand": 2.0, "tie": True}),
]
MAMBAS = [("mamba", {}), ("mamba", {"tie": True}), ("mamba2", {"headdim": 16})]


def made(name, *, vocab=V, role="lm", **options):
    torch.manual_seed(0)
    shape = zoo.Shape(length=T, vocab=vocab, outputs=vocab, width=D, depth=N)
    model = zoo.build(name, role, shape=shape, **options)
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn_like(p) * (0.3 if p.dim() < 2 else 0.5 * p.shape[-1] ** -0.5)
    return model


def ids():
    return torch.randint(V, (3, T), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def same_logits(model, folder):
    there = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    want, got = model.eval()(Batch(inputs=ids())), there(input_ids=ids()).logits
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()
    return there


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_logits(tmp_path, name, options):
    model = made(name, **options)
    before = torch.get_rng_state()
    assert export.save(model, tmp_path / "there") == tmp_path / "there"
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    there = same_logits(model, tmp_path / "there")
    assert there.config.max_position_embeddings == T
    assert (tmp_path / "there" / "model.safetensors").is_file()


@pytest.mark.parametrize(("name", "options"), MAMBAS)
def test_mambas(tmp_path, name, options):
    model = made(name, **options)
    same_logits(model, export.save(model, tmp_path))


@torch.no_grad()
def test_and_back(tmp_path):
    model = made("gpt2")
    model.tokenizer = Bytes()
    folder = export.save(model.double(), tmp_path)
    back = zoo.load(folder, through="zoo").double()
    assert torch.allclose(back(Batch(inputs=ids())), model(Batch(inputs=ids())), atol=1e-5)
    assert back.tokenizer.encode("é\n<|endoftext|>") == list("é\n<|endoftext|>".encode())
    assert (back.tokenizer.prefix, back.tokenizer.vocab) == (10, V)
    assert zoo.load(zoo.save(back, tmp_path / "ours")).tokenizer.encode("<|endoftext|>") == list(b"<|endoftext|>")


def test_generation(tmp_path):
    """Greedy text of theirs is the greedy text of ours."""
    model = made("transformer_pp").eval()
    model.tokenizer = Bytes()
    there = same_logits(model, export.save(model, tmp_path))
    assert (there.generation_config.bos_token_id, there.generation_config.eos_token_id) == (10, 255)
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokens = reader("to be\n", return_tensors="pt")
    got = there.generate(**tokens, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    want = tokens["input_ids"]
    with torch.no_grad():
        for _ in range(8):
            want = torch.cat([want, model(Batch(inputs=want))[:, -1:].argmax(-1)], 1)
    assert torch.equal(got, want)


def refused(model, folder, said):
    with pytest.raises(PretrainedError) as caught:
        export.save(model, folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("gpt2", {"residual": "post"}, "GPT-2 has no residual type post; only pre"),
        ("gpt2", {"norm": "rms"}, "no norm rms; only layer or layer_eps6 or layer_eps12"),
        ("pre_ln", {"positions": "rope"}, "no positions rope; only learned"),
        ("pre_ln", {"channel": "glu"}, "no channel glu; only mlp"),
        ("pre_ln", {"channel": "none"}, "no channel none"),
        ("pre_ln", {"channel": {"mlp": {"bias": False}}}, "no channel mlp without biases"),
        ("transformer_pp", {"norm": "layer"}, "Llama has no norm layer"),
        ("transformer_pp", {"positions": {"rope": {"convention": "interleaved"}}}, "convention"),
        ("transformer_pp", {"positions": {"rope": {"fraction": 0.5}}}, "fraction"),
        ("transformer_pp", {"positions": "alibi"}, "no positions alibi"),
        ("rwkv4", {"norm": "layer_eps6"}, "RWKV has no norm layer_eps6"),
        (
            "retnet",
            {},
            "transformers has no retnet; of the zoo it has gpt2, mamba, mamba2, pre_ln, rwkv4, transformer_pp",
        ),
        ("pre_ln", {"role": "masked"}, "only language models (role lm)"),
    ],
)
def test_what_transformers_does_not_have(tmp_path, name, options, said):
    refused(made(name, **options), tmp_path / "there", said)


def test_other_refusals(tmp_path, monkeypatch):
    model = made("gpt2")
    there = tmp_path / "there"
    model.tokenizer = Characters("".join(map(chr, range(V + 1))))
    refused(model, there, f"the tokenizer has {V + 1} tokens, and the model {V}")
    model.tokenizer = Bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(PretrainedError, match="cannot be written"):
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
        found = right.pairs(model)
        if fault == "swapped":
            first, second = (next(i for i, p in enumerate(found) if f"h.{n}.ln_1.bias" in p.theirs[0]) for n in (0, 1))
            ours = [found[second].ours, found[first].ours]
            for i, name in zip((first, second), ours, strict=True):
                found[i] = Pair(name, found[i].theirs)
        return found

    monkeypatch.setitem(counterparts.COUNTERPARTS, "gpt2", counterparts.Counterpart(config, pairs))
    refused(made("gpt2"), tmp_path / "there", "transformers gives other logits from these weights")


def opened(own, folder):
    """A tokenizer of ours as transformers reads it."""
    hf_tokenizer.save(hf_tokenizer.convert(own, T), Path(folder))
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def byte_reader(tmp_path_factory):
    return opened(Bytes(), tmp_path_factory.mktemp("bytes"))


def agree(reader, own, text):
    tokens = own.encode(text)
    assert reader.encode(text) == tokens
    assert reader([text, text])["input_ids"] == [tokens, tokens]
    assert reader.decode(tokens, skip_special_tokens=True) == text
    assert reader.decode(tokens) == text


@given(st.text() | st.text(alphabet="\n\r ĊÿĀ<|endoftext|>'s.,"))
def test_bytes(byte_reader, text):
    agree(byte_reader, Bytes(), text)


@given(st.lists(st.integers(0, 254)))
def test_bytes_that_are_no_text(byte_reader, tokens):
    assert byte_reader.decode(tokens) == Bytes().decode(tokens)


def test_byte_tokenizer(byte_reader):
    assert (len(byte_reader), byte_reader.vocab_size, byte_reader.model_max_length) == (256, 256, T)
    assert (byte_reader.bos_token_id, byte_reader.eos_token_id) == (10, 255)


CHARACTERS = "\t\n !<>|abcdefĊÿ日\U0001f600"


@pytest.fixture(scope="module")
def character_reader(tmp_path_factory):
    return opened(Characters(CHARACTERS), tmp_path_factory.mktemp("characters"))


@given(st.text(alphabet=CHARACTERS))
def test_characters(character_reader, text):
    agree(character_reader, Characters(CHARACTERS), text)


def test_character_tokenizer(character_reader):
    assert character_reader.bos_token_id == character_reader.eos_token_id == 1
    with pytest.raises(Exception, match="UNK"):
        character_reader.encode("z")


def byte_pairs(*special):
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, show_progress=False, special_tokens=list(special)
    )
    backend.train_from_iterator(["the cat\n\nsat on\nthe mat"] * 9, trainer)
    return backend


@pytest.fixture(scope="module")
def pair_readers(tmp_path_factory):
    plain, named = byte_pairs(), byte_pairs("<s>", "</s>")
    ours = [Fast(plain.to_str(), prefix=plain.encode("\n").ids[0]), Fast(named.to_str(), prefix=0, end=1)]
    return [(opened(own, tmp_path_factory.mktemp("pairs")), own) for own in ours]


@given(st.text() | st.text(alphabet="the catsn\n<|endoftext|>Ġġ"))
def test_byte_pairs(pair_readers, text):
    assume("<s>" not in text and "</s>" not in text)  # the special tokens themselves, which decoding leaves out
    for reader, own in pair_readers:
        agree(reader, own, text)


def test_byte_pair_tokenizers(pair_readers):
    (plain, own), (named, _) = pair_readers
    assert plain.bos_token_id == plain.eos_token_id == own.prefix
    assert (named.bos_token_id, named.eos_token_id) == (0, 1)
    assert named.encode("<s>a", add_special_tokens=False)[0] == 0


def test_command(tmp_path):
    model = made("pre_ln")
    model.tokenizer = Bytes()
    run = zoo.save(model, tmp_path / "run")

    def call(*args):
        return CliRunner().invoke(main, ["export", str(run), *map(str, args)])

    told = json.loads(call(tmp_path / "ours", "--json").output)
    assert told["files"] == ["model.safetensors", "zoo.json"]
    assert call(tmp_path / "there", "--format", "transformers").exit_code == 0
    same_logits(model, tmp_path / "there")
    same_logits(model, export.save(zoo.load(tmp_path / "ours"), tmp_path / "again"))
    zoo.save(made("retnet"), run)
    failed = call(tmp_path / "none", "--format", "transformers")
    assert failed.exit_code == 2
    assert failed.output.count("\n") == 1
    assert "transformers has no retnet" in failed.output
    assert not (tmp_path / "none").exists()

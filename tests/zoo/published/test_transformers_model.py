"""Small random models of transformers, as transformers runs them and behind our interface, whole and broken."""

import json
import pickle
import sys
from functools import partial

import pytest
import torch

import zoo
from tests.zoo import models
from tests.zoo.models import close, in_pieces, logits, randomise
from zoo.contract import Batch, Unsupported
from zoo.size import parameters
from zoo.tokenizers import make

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

refused = partial(models.refused, kind="transformers")
V, T, B = 70, 24, 3
IDS = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))
SIZES = {
    "vocab_size": V, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": T, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = {  # whether it goes on from a state, and whether its head stands alone
    "gpt2": (True, True, {"n_inner": 48}),
    "llama": (True, True, {}),
    "mixtral": (True, True, {}),
    "bloom": (True, True, {}),
    "cohere": (True, False, {"logit_scale": 0.5}),
    "gemma2": (False, False, {"head_dim": 8, "sliding_window": 4}),
    "mistral": (False, True, {"sliding_window": 4}),
    "rwkv": (False, True, {"context_length": T, "rescale_every": 2}),
}


def model_of(family, **more):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **{**SIZES, **FAMILIES.get(family, (0, 0, {}))[2], **more})
    return randomise(transformers.AutoModelForCausalLM.from_config(config))


def saved(folder, family="llama", **more):
    model_of(family, **more).save_pretrained(folder)
    return folder


def tokenizer(vocab=V, **told):
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={c: i for i, c in enumerate(letters(vocab))}, merges=[]))
    backend.decoder = tokenizers.decoders.Fuse()
    first = tokenizers.processors.TemplateProcessing(single="b $A", special_tokens=[("b", 1)])
    backend.post_processor = first
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **told)


def letters(count):
    return ["a", "b", "c", *map(chr, range(0x4E00, 0x4E00 + count - 3))]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_families(tmp_path, family):
    resumable, headed, _ = FAMILIES[family]
    want = model_of(family)(input_ids=IDS).logits
    model = zoo.load(saved(tmp_path, family))
    assert (model.role, model.shape.vocab, model.shape.outputs, model.shape.width) == ("lm", V, V, 32)
    assert (model.shape.length, model.longest, model.shape.depth, model.training) == (T, T, 3, False)
    close(logits(model, IDS), want, 1e-5)
    assert (model.traits.resumable, hasattr(model, "encode")) == (resumable, headed)
    if headed:
        assert torch.equal(model.head(model.encode(IDS)), logits(model, IDS))
    if resumable:
        again, state = in_pieces(model, IDS, [1, 7, 1, 15])
        close(again, want, 1e-5)
        assert state["position"].tolist() == [T] * B
    else:
        with pytest.raises(Unsupported, match="cannot resume from a state"):
            model.init_state(1)
    other, mask = torch.where(torch.arange(T) < 10, IDS, 0), torch.arange(T).expand(B, -1) < 10
    close(model(Batch(inputs=other, mask=mask))[:, :10], want[:, :10], 1e-5)


@torch.no_grad()
def test_a_state_can_be_shared_and_does_not_change(tmp_path):
    model = zoo.load(saved(tmp_path))
    _, state = model.extend(IDS[:1, :8], model.init_state(1))
    many = {
        "position": state["position"].repeat(B),
        "layers": {i: {name: x.repeat(B, 1, 1, 1) for name, x in kv.items()} for i, kv in state["layers"].items()},
    }
    ahead, _ = model.extend(IDS[:, 8:], many)
    again, _ = model.extend(IDS[:, 8:], many)
    alone, _ = model.extend(IDS[:1, 8:], state)
    assert torch.equal(ahead, again)
    assert torch.allclose(ahead[:1], alone, atol=1e-5)
    with pytest.raises(Unsupported, match="reads 24 tokens"):
        model.extend(IDS, many)


def test_rotations_that_shift_with_the_length_are_not_resumable(tmp_path):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert not zoo.load(saved(tmp_path, rope_parameters=rope)).traits.resumable


@pytest.mark.parametrize(("tied", "tables"), [(True, V + T), (False, V + T + V)])
def test_the_backbone_holds_all_but_tables_and_head(tmp_path, tied, tables):
    model = zoo.load(saved(tmp_path, "gpt2", tie_word_embeddings=tied))
    assert parameters(model) - parameters(model, "non_embedding") == tables * 32


@torch.no_grad()
def test_weights_that_are_no_numbers(tmp_path):
    """A run that diverged is still what it is."""
    model = model_of("gpt2")
    model.transformer.wte.weight.fill_(torch.nan)
    model.save_pretrained(tmp_path)
    assert logits(zoo.load(tmp_path), IDS).isnan().all()


def test_dtype_and_length(tmp_path):
    model = zoo.load(saved(tmp_path), dtype="bfloat16", length=9)
    assert model.shape.length == 9
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.traits.resumable
    assert model.longest is None
    model_of("llama").bfloat16().save_pretrained(tmp_path / "half")
    assert next(zoo.load(tmp_path / "half", dtype="auto").parameters()).dtype == torch.bfloat16
    assert next(zoo.load(tmp_path / "half").parameters()).dtype == torch.float32
    refused(tmp_path, "dtype 'int7' is not one of float32", dtype="int7")


def test_length_without_positions_in_the_config(tmp_path):
    told = saved(tmp_path, "mamba") / "config.json"
    told.write_text(json.dumps({k: v for k, v in json.loads(told.read_text()).items() if "position" not in k}))
    assert zoo.load(tmp_path, kind="transformers").shape.length == 2048
    tokenizer(model_max_length=77).save_pretrained(tmp_path)
    assert zoo.load(tmp_path, kind="transformers").shape.length == 77


def test_tokenizer(tmp_path):
    tokenizer(bos_token="b", eos_token="c").save_pretrained(saved(tmp_path))
    own = zoo.load(tmp_path).tokenizer
    assert (own.vocab, own.prefix, own.end) == (V, 1, 2)
    text = "a" + letters(V)[9]
    assert own.encode(text) == own.encode(text, special=True) == [1, 0, 9]
    assert own.encode(text, special=False) == [0, 9]
    assert own.decode([0, 9]) == text
    again = make(own.describe())
    for special in (None, True, False):
        assert again.encode(text, special=special) == own.encode(text, special=special)
    assert (again.prefix, again.end, again.decode([1, 9])) == (1, 2, own.decode([1, 9]))


def test_a_tokenizer_without_a_beginning_and_nothing_printed(tmp_path, capfd):
    tokenizer(eos_token="c").save_pretrained(saved(tmp_path))
    capfd.readouterr()
    assert zoo.load(tmp_path).tokenizer.prefix == 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("gpt2", {"tie_word_embeddings": False, "n_inner": None, "activation_function": "relu"}),
        ("gpt2", {"layer_norm_epsilon": 1e-6}),
        ("llama", {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-5}),
        ("llama", {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
    ],
)
@torch.no_grad()
def test_through_our_modules(tmp_path, family, options):
    model = zoo.load(saved(tmp_path, family, **options), through="zoo")
    assert model.built["architecture"] == {"gpt2": "gpt2", "llama": "transformer_pp"}[family]
    close(logits(model, IDS), model_of(family, **options)(input_ids=IDS).logits, 1e-5)
    assert torch.equal(logits(zoo.load(zoo.save(model, tmp_path / "ours")), IDS), logits(model, IDS))


@pytest.mark.parametrize(
    ("family", "options", "words"),
    [
        ("mixtral", {}, "and recurrent_gemma, not mixtral"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "no scale_attn_by_inverse_layer_idx True"),
        ("gpt2", {"layer_norm_epsilon": 1e-4}, "no layer_norm_epsilon 0.0001"),
        ("gpt2", {"activation_function": "mish"}, "no activation_function 'mish'"),
        ("llama", {"head_dim": 4}, "no head_dim 4; only 8"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "rope_type 'linear'"),
    ],
)
def test_what_our_modules_do_not_have(tmp_path, family, options, words):
    refused(saved(tmp_path, family, **options), words, through="zoo")


def rewrite(folder, change):
    """The folder with other weights."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_weights_that_do_not_fit(tmp_path):
    name = "model.layers.1.mlp.up_proj.weight"
    folder = saved(tmp_path)
    refused(rewrite(folder, lambda w: w.update({name: torch.zeros(40, 32)})), f"{name} has the shape (40, 32)")
    refused(rewrite(folder, lambda w: w.pop(name)), f"it lacks {name}")
    more = {name.replace("1", "3"): torch.zeros(48, 32)}
    refused(rewrite(saved(tmp_path), lambda w: w.update(more)), "it has also model.layers.3")
    saved(tmp_path)
    zoo.load(rewrite(folder, lambda w: w.update({"model.rotary.inv_freq": torch.zeros(4)})))


def test_folders_that_are_none(tmp_path):
    refused(tmp_path, "no config.json")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    refused(tmp_path, "no weights here")
    folder = saved(tmp_path)
    (folder / "model.safetensors").write_bytes(b"not weights at all")
    refused(folder, str(folder))
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"model_type": "quipu"}))
    refused(folder, "knows no model_type 'quipu'")
    (folder / "config.json").write_text(json.dumps(told | {"model_type": "quipu", "auto_map": {"AutoConfig": "x.Y"}}))
    refused(folder, "quipu needs code that comes with the weights")
    (folder / "config.json").write_text(json.dumps(told | {"model_type": ["llama"]}))
    refused(folder, "config.json: model_type must be a name or none, got ['llama']")
    (saved(folder) / "config.json").write_text(json.dumps(told | {"num_hidden_layers": 10**6}))
    refused(folder, f"{folder}: its config has 1,000,000 layers, and its weights are 30 tensors")
    refused(tmp_path / "nowhere", "no such file or folder")
    refused(saved(tmp_path / "sound"), "through 'keras' is not one of transformers, zoo", through="keras")
    refused(folder, "trust_remote_code", trust_remote_code=True)


def test_encoders_are_refused(tmp_path):
    config = transformers.BertConfig(**SIZES)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    refused(tmp_path, "bert looks ahead, as an encoder does")
    transformers.BertModel(config).save_pretrained(tmp_path)
    refused(tmp_path, "it lacks")
    config = transformers.T5Config(vocab_size=V, d_model=32, d_ff=32, d_kv=8, num_layers=1, num_heads=4)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    refused(tmp_path / "t5", "t5 is no causal language model")


class Trap:
    def __reduce__(self):
        return sys.exit, (3,)


def test_pickles_are_read_for_their_tensors_only(tmp_path):
    folder = saved(tmp_path)
    weights = model_of("llama").state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    zoo.load(folder)
    torch.save(weights | {"more": Trap()}, folder / "pytorch_model.bin", pickle_module=pickle)
    refused(folder, str(folder))


def test_tokenizers_that_do_not_fit(tmp_path):
    tokenizer(vocab=V + 1).save_pretrained(saved(tmp_path))
    refused(tmp_path, f"its tokenizer has {V + 1} tokens, and the model {V}")
    tokenizers.Tokenizer(tokenizers.models.BPE(vocab={}, merges=[])).save(str(tmp_path / "tokenizer.json"))
    refused(tmp_path, f"its tokenizer has 0 tokens, and the model {V}")
    (tmp_path / "tokenizer.json").write_text("{")
    refused(tmp_path, "its tokenizer cannot be read")


def test_without_transformers(tmp_path, monkeypatch):
    saved(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(tmp_path, f"{tmp_path} needs transformers: pip install 'zoobench[transformers]'")

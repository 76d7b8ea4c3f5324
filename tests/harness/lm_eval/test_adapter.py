"""Zoobench against lm_eval's own `hf` backend on the same weights, and against models whose answers are known."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("lm_eval")
tokenizers = pytest.importorskip("tokenizers")

import lm_eval  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

import zoo  # noqa: E402
from harness.errors import UserError  # noqa: E402
from harness.lm_eval import adapter  # noqa: E402
from harness.lm_eval.adapter import Zoobench  # noqa: E402
from harness.lm_eval.generation import GenerationOptions  # noqa: E402
from zoo import published  # noqa: E402
from zoo.build import build  # noqa: E402
from zoo.contract import Batch, Model, Shape, Traits  # noqa: E402
from zoo.tokenizers import Bytes, Characters, Fast, Tokenizer  # noqa: E402

LENGTH = 48
TEXT = "The cat sat on the mat, and the dog sat near it. Were they happy? Nobody knows what a cat thinks: über alles.\n"
WORDS = TEXT.split()


def answered(lm: Any, kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    """What a model of lm_eval answers to requests of a kind."""
    asked = [Instance(request_type=kind, doc={}, arguments=one, idx=i) for i, one in enumerate(arguments)]
    return getattr(lm, kind)(asked, disable_tqdm=True)


def subwords() -> Any:
    """A byte-level BPE of TEXT with `<s>` before and nothing behind it."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([TEXT] * 4, trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return made


class Uniform(Model):
    """Every token is as likely as any other."""

    def __init__(self, tokenizer: Tokenizer | None, *, causal: Any = "strict", length: Any = "max") -> None:
        super().__init__()
        vocab = tokenizer.vocab if tokenizer else 256
        self.role, self.tokenizer = "lm", tokenizer
        self.traits = Traits(causal=causal, bidirectional=False, resumable=False, length=length)
        self.shape = Shape(length=LENGTH, outputs=vocab, vocab=vocab)

    def forward(self, batch: Batch) -> Tensor:
        return torch.zeros(*batch.inputs.shape, self.shape.outputs)


class Alphabet(Uniform):
    """After each byte comes the next one."""

    def forward(self, batch: Batch) -> Tensor:
        return 9 * torch.nn.functional.one_hot((batch.inputs + 1) % 256, 256).float()


@pytest.fixture(scope="module")
def hf() -> Any:
    """lm_eval's own backend with a random Llama and our subwords."""
    transformers = pytest.importorskip("transformers")
    from lm_eval.models.huggingface import HFLM

    torch.manual_seed(0)
    backend = subwords()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": LENGTH}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    tokens = {"vocab_size": backend.get_vocab_size(), "bos_token_id": 0, "eos_token_id": 1}
    config = transformers.LlamaConfig(initializer_range=0.3, **sizes, **heads, **tokens)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    return HFLM(pretrained=transformers.LlamaForCausalLM(config).eval(), tokenizer=tokenizer, batch_size=3)


@pytest.fixture(scope="module")
def ours(hf: Any, tmp_path_factory: pytest.TempPathFactory) -> Zoobench:
    """The same weights and subwords, opened by their path."""
    folder = tmp_path_factory.mktemp("llama")
    hf.model.save_pretrained(folder)
    hf.tokenizer.save_pretrained(folder)
    return Zoobench(run=str(folder))


def choices() -> list[tuple[str, str]]:
    """Questions with four answers; edges: no context, a space at its end, one token, too long, the same again."""
    found = [
        (" ".join(WORDS[i : i + n]), " " + " ".join(WORDS[j : j + m]))
        for i, n in ((0, 3), (4, 9), (2, 17))
        for j, m in ((0, 1), (5, 2), (9, 4), (12, 8))
    ]
    edges = [("", "The cat"), ("The cat ", "sat"), ("The", " mat"), ("The", " m"), ("<s>Were", " a")]
    long = [(TEXT * 3, " happy"), ("Were they", " happy? " + "Nobody knows. " * 4)]
    return [*found, *edges, *long, found[3]]


def test_log_likelihoods_are_those_of_hf(hf: Any, ours: Zoobench) -> None:
    wanted, found = (answered(lm, "loglikelihood", *choices()) for lm in (hf, ours))
    assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]


def test_rolling_log_likelihoods_are_those_of_hf(hf: Any, ours: Zoobench) -> None:
    texts = (TEXT,), ("",), (TEXT * 4,), ("cat",), ("<s>The cat",)
    wanted, found = (answered(lm, "loglikelihood_rolling", *texts) for lm in (hf, ours))
    assert found == pytest.approx(wanted, abs=1e-3)


def test_tokens_are_those_of_hf(hf: Any, ours: Zoobench) -> None:
    for text in (TEXT, "", "<s>The", " über"):
        for special in (None, True, False):
            assert ours.tok_encode(text, add_special_tokens=special) == hf.tok_encode(text, add_special_tokens=special)
    assert (ours.eot_token_id, ours.prefix_token_id, ours.max_length) == (1, 0, hf.max_length)


def test_continuations_are_those_of_hf(hf: Any, ours: Zoobench) -> None:
    until = {context: ["zz"] for context in ("The cat", "the dog sat", "Were they", TEXT * 2)}
    for _ in range(2):
        asked = [(text, {"max_gen_toks": 12, "do_sample": False, "until": stops}) for text, stops in until.items()]
        # each alone: hf pads a batch on the left, which moves its positions
        wanted = [answered(hf, "generate_until", each)[0] for each in asked]
        assert answered(ours, "generate_until", *asked) == wanted
        until = {context: [text[3:5], text[6:9]] for context, text in zip(until, wanted, strict=True)}


# texts of which the model knows nothing: bits per byte are log2(V) · tokens / bytes

TOKENIZERS = {
    "bytes": Bytes,
    "characters": lambda: Characters("".join(sorted(set(TEXT)))),
    "subwords": lambda: Fast(subwords().to_str(), prefix=0, end=1),
}


TEXTS = [TEXT * 3, "über"]
ROLLING = {"task": "rolling", "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"}
CHOICE = {
    "task": "choice",
    "output_type": "multiple_choice",
    "doc_to_text": "{{text[:20]}}",
    "doc_to_choice": ["a", "cat", "the mat"],
    "doc_to_target": 1,
    "target_delimiter": "",
}


def ask(lm: Zoobench, task: dict[str, Any], metric: str) -> dict[str, Any]:
    """lm_eval's report of one task over `TEXTS`."""
    from datasets import Dataset

    texts = {"test": Dataset.from_list([{"text": text} for text in TEXTS])}
    own = {"custom_dataset": lambda **_: texts, "test_split": "test", "metric_list": [{"metric": metric}]}
    made, manager = ConfigurableTask(config=task | own), TaskManager(include_defaults=False)
    return lm_eval.simple_evaluate(lm, tasks=[made], task_manager=manager, bootstrap_iters=0)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_bits_per_byte(kind: str) -> None:
    lm = Zoobench(model=Uniform(TOKENIZERS[kind]()), batch_size=2)
    found = ask(lm, ROLLING, "bits_per_byte")
    tokens, count = sum(len(lm.tok_encode(text)) for text in TEXTS), sum(len(text.encode()) for text in TEXTS)
    wanted = math.log2(lm.tokenizer.vocab) * tokens / count
    assert found["results"]["rolling"]["bits_per_byte,none"] == pytest.approx(wanted, rel=1e-5)
    assert (found["config"]["model_max_length"], found["config"]["model_num_parameters"]) == (LENGTH, 0)


def saved(name: str, folder: Path, vocab: int = 256) -> Model:
    """A small model of bytes, saved in a folder."""
    made = build(name, "lm", shape=Shape(length=LENGTH, outputs=vocab, vocab=vocab, width=8, depth=1))
    made.tokenizer = Bytes() if vocab == 256 else None
    zoo.save(made, folder)
    return made


def test_a_saved_model_answers_by_its_path(tmp_path: Path) -> None:
    made = saved("lstm", tmp_path / "model")
    by_path = Zoobench.create_from_arg_string(f"run={tmp_path / 'model'},max_length=64", {"device": "cpu"})
    found, again = (ask(lm, CHOICE, "acc") for lm in (by_path, Zoobench(model=made, max_length=64, batch_size=1)))
    assert found["config"]["model_sha"] == again["config"]["model_sha"]
    assert found["config"]["model_where"] == str(tmp_path / "model")
    samples = [one["samples"]["choice"] for one in (found, again)]
    value, other = ([float(answer[0][0]) for sample in own for answer in sample["resps"]] for own in samples)
    assert value == pytest.approx(other, abs=1e-5)


def test_published_weights_take_the_options_of_zoo_load(tmp_path: Path) -> None:
    """RWKV weights named by their kind, with a tokenizer of 256 tokens that their vocabulary of 300 does not imply."""
    path = published.export(saved("rwkv4", tmp_path / "zoo", 300), tmp_path / "rwkv", "rwkv") / "model.pth"
    arguments = f"run={path},kind=rwkv,tokenizer=bytes,length=20,decay=raw"
    lm = Zoobench.create_from_arg_string(arguments, {"device": "cpu"})
    assert (lm.tokenizer.kind, lm.max_length, lm.model.built["architecture"]) == ("bytes", 20, "rwkv4")
    assert ask(lm, CHOICE, "acc")["config"]["model_tokenizer"].startswith("bytes-")
    with pytest.raises(UserError, match="no tokenizer, and lm_eval asks in text"):
        Zoobench(run=str(path))


# what is generated


def continued(lm: Zoobench, context: str, **options: Any) -> str:
    return answered(lm, "generate_until", (context, options))[0]


@pytest.fixture
def alphabet() -> Zoobench:
    return Zoobench(model=Alphabet(Bytes()))


def test_continuations_end_before_the_first_stop(alphabet: Zoobench) -> None:
    assert continued(alphabet, "ab", until=["gh", "fg"], max_gen_toks=20) == "cde"
    assert continued(alphabet, "ab", until="d", max_gen_toks=20) == "c"
    assert continued(alphabet, "ab", max_gen_toks=4) == "cdef"
    assert len(continued(alphabet, "!")) == LENGTH // 2


def test_a_prompt_loses_its_beginning_but_never_all_of_itself(alphabet: Zoobench) -> None:
    assert continued(alphabet, "z" * 60 + "a", max_gen_toks=47) == bytes(range(98, 98 + 47)).decode(errors="replace")
    with pytest.raises(UserError, match="max_gen_toks=48 must be less than the 48 tokens"):
        continued(alphabet, "a", max_gen_toks=48)
    endless = Zoobench(model=Alphabet(Bytes(), length="any"))
    assert len(endless.tok_encode(continued(endless, " ", max_gen_toks=60, until=["~"]))) == 60


def test_samples_depend_on_the_seed_and_the_place_alone(alphabet: Zoobench) -> None:
    lm = Zoobench(model=Uniform(Characters("abcdefgh")))
    wish = {"do_sample": True, "max_gen_toks": 9}
    asked = ("a", wish), ("ab", wish), ("a", wish)
    torch.manual_seed(3)
    found = answered(lm, "generate_until", *asked)
    assert len(set(found)) == 3
    lm.batch_size = 1
    assert answered(lm, "generate_until", *asked) == found
    torch.manual_seed(4)
    assert answered(lm, "generate_until", *asked) != found


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, (0.0, None, None)),
        ({"temperature": 0.7}, (0.7, None, None)),
        ({"do_sample": True}, (1.0, None, None)),
        ({"do_sample": True, "temperature": 0.5, "top_k": 3, "top_p": 0.9}, (0.5, 3, 0.9)),
        ({"do_sample": False, "temperature": 0.5}, (0.0, None, None)),
        ({"top_k": 0, "top_p": 1}, (0.0, None, None)),
    ],
)
def test_how_a_task_wants_its_tokens(options: dict[str, Any], wanted: tuple[Any, ...]) -> None:
    found = GenerationOptions.parse(options, 512)
    assert (found.temperature, found.top_k, found.top_p) == wanted
    assert (found.tokens, found.until) == (256, ())


def test_unknown_options_are_refused() -> None:
    for options, said in (({"max_gen_tokens": 3}, "did you mean"), ({"num_beams": 4}, "beam")):
        with pytest.raises(UserError, match=said):
            GenerationOptions.parse(options, 512)


# what is kept


def test_every_answer_reaches_the_cache_of_its_own_model(alphabet: Zoobench) -> None:
    kept: dict[str, Any] = {}
    hook = lm_eval.api.model.CacheHook(None)
    hook.dbdict = kept
    alphabet.set_cache_hook(hook)
    asked = {
        "loglikelihood": [("a", "b"), ("", "c")],
        "loglikelihood_rolling": [("abc" * 40,)],
        "generate_until": [("a", {"until": ["e"], "max_gen_toks": 9})],
    }
    for kind, arguments in asked.items():
        for one, answer in zip(arguments, answered(alphabet, kind, *arguments), strict=True):
            assert kept[lm_eval.api.model.hash_args(kind, one)] == answer
    for other in (Zoobench(model=Alphabet(Bytes()), max_length=9), Zoobench(model=Uniform(Characters("ab")))):
        with pytest.raises(UserError, match="another model"):
            other.set_cache_hook(hook)
    Zoobench(model=Alphabet(Bytes())).set_cache_hook(hook)
    kept.pop(adapter.CACHE_OWNER)
    with pytest.raises(UserError, match="another model"):
        alphabet.set_cache_hook(hook)


def test_tokenizers_are_named_by_what_they_are() -> None:
    names = [Zoobench(model=Uniform(made)).tokenizer_name for made in (Bytes(), Characters("ab"), Characters("abc"))]
    assert len(set(names)) == 3
    assert names[0] == Zoobench(model=Uniform(Bytes())).tokenizer_name


# edges and errors


def test_nothing_has_no_cost() -> None:
    lm = Zoobench(model=Uniform(Bytes()))
    found = answered(lm, "loglikelihood", ("", ""), ("a", ""), (" ", "b"), ("", "\n"))
    byte = -math.log(256)
    assert [value for value, _ in found] == pytest.approx([0, 0, 2 * byte, 0], abs=1e-5)


def test_a_continuation_that_ends_inside_a_token_of_its_context_is_read_by_itself() -> None:
    lm = Zoobench(model=Uniform(TOKENIZERS["subwords"]()))
    lm.tok_encode = lambda text, *_, **__: [7] if len(text) > 1 else [5]  # type: ignore[method-assign]
    assert lm._encode_pair("ab", "c") == ([7], [7, 5][1:])


@pytest.mark.parametrize(
    ("model", "arguments", "said"),
    [
        (None, {}, "say which model"),
        ("bytes", {"run": "x"}, "say which model"),
        ("bytes", {"max_len": 3}, "no argument 'max_len'; did you mean 'max_length'"),
        ("bytes", {"tokeniser": "x"}, "no argument 'tokeniser'; did you mean 'tokenizer'"),
        ("bytes", {"tokenizer": "bytes"}, "a model that is open takes no tokenizer"),
        (None, {"run": "typeseg", "tokenizer": "bytes"}, "kind typeseg has no option 'tokenizer'"),
        (None, {"run": "/nowhere/at/all"}, "no such file"),
        (None, {"run": 12e4}, "took 120000.0 for a number"),
        ("bytes", {"max_length": 49}, "at most 48 tokens"),
        ("bytes", {"max_length": "all"}, "whole number"),
        ("bytes", {"batch_size": 0}, "batch_size must be"),
        ("bytes", {"batch_size": "many"}, "batch_size must be"),
        ("bytes", {"precision": "fp8"}, "precision 'fp8'"),
        ("bytes", {"prefix_token_id": 256}, "none of the model's 256 tokens"),
        ("bytes", {"device": "abacus"}, "device 'abacus'"),
        (Uniform(None), {}, "no tokenizer"),
        (Uniform(Bytes(), causal="no"), {}, "no next token"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(model: Any, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        Zoobench(model=Uniform(Bytes()) if model == "bytes" else model, **arguments)
    assert "\n" not in str(error.value)


def test_batch_sizes(tmp_path: Path) -> None:
    sizes = {None: None, "auto": None, "auto:4": None, 7: 7, "7": 7}
    assert {size: Zoobench(model=Uniform(Bytes()), batch_size=size).batch_size for size in sizes} == sizes
    assert Zoobench(model=Uniform(Bytes()), batch_size="auto", max_batch_size=5).batch_size == 5
    assert Zoobench(model=saved("gru", tmp_path), batch_size=1).batch_size == 1
    # what lm_eval's command line says by itself is nobody's wish: a batch of 1, and CUDA
    made = [Zoobench.create_from_arg_obj({"run": str(tmp_path)}, {"batch_size": size}) for size in (1, 4, None)]
    assert [lm.batch_size for lm in made] == [None, 4, None]
    lm = Zoobench.create_from_arg_obj({"run": str(tmp_path)}, {"batch_size": 1, "device": "cuda:0"})
    assert lm.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_character_without_a_token_names_the_request() -> None:
    lm = Zoobench(model=Uniform(Characters("abc ")))
    with pytest.raises(UserError, match=r"'x' .*in the request 'a cab x'"):
        answered(lm, "loglikelihood", ("a cab", " x"))
    with pytest.raises(UserError, match="chat template"):
        lm.apply_chat_template([{"role": "user", "content": "a"}])


def test_an_error_that_nobody_catches_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others: list[BaseException] = []
    monkeypatch.setattr("sys.excepthook", lambda kind, error, trace: others.append(error))
    for _ in range(2):
        with pytest.raises(UserError):
            Zoobench.create_from_arg_obj({"run": "/nowhere"}, {"batch_size": 1})
    import sys

    for error in (UserError("what to do"), KeyError("theirs")):
        sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == "zoobench: what to do\n"
    assert [str(error) for error in others] == ["'theirs'"]

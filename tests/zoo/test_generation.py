"""What is written follows the probabilities of whole passes, however it is computed; text comes as it is certain."""

import dataclasses
import itertools

import pytest
import torch

import zoo
from zoo.contract import Batch, Model, Shape, Traits, Unsupported, state_bytes
from zoo.generate import PIECE, Sampling, continue_batch, generate, stream_text
from zoo.tokenizers import Bytes, Characters, Fast, Tokenizer, World

V, LENGTH = 23, 40
RECURRENT = ["mamba", "mamba2", "rwkv4", "rwkv7", "retnet", "lstm", "s4d", "gated_delta_net"]
CACHED = ["pre_ln", "gpt2", "transformer_pp", "local"]
PROMPT = torch.tensor([3, 1, 4, 1, 5])


def build(name, *, vocab=V, length=LENGTH, **options):
    torch.manual_seed(4)
    width = 32 if name == "rwkv7" else 16
    shape = Shape(length=length, vocab=vocab, outputs=vocab, width=width, depth=2)
    model = zoo.build(name, "lm", shape=shape, **options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


class Fixed(Model):
    """Logits by the last token alone; counts what it is asked to read."""

    role = "lm"

    def __init__(self, table, *, tokenizer=None, **traits):
        super().__init__()
        table = torch.as_tensor(table, dtype=torch.float64)
        self.register_buffer("table", table)
        self.shape, self.tokenizer, self.read = Shape(length=8, vocab=len(table), outputs=table.shape[1]), tokenizer, []
        self.traits = Traits(**{"causal": "strict", "bidirectional": False, "resumable": False, **traits})

    def forward(self, batch):
        self.read.append(tuple(batch.inputs.shape))
        return self.table[batch.inputs]


class Resumed(Fixed):
    """The same, from a state."""

    def __init__(self, table, **told):
        super().__init__(table, resumable=True, **told)

    def init_state(self, batch):
        return {"steps": torch.zeros(batch, 1)}

    def extend(self, tokens, state):
        self.read.append(tuple(tokens.shape))
        return self.table[tokens], {"steps": state["steps"] + tokens.shape[1]}


def spelling(text, tokenizer):
    """A model that writes the tokens of a text, one after another, by where it is."""

    class Spells(Resumed):
        def extend(self, tokens, state):
            at = int(state["steps"][0, 0])
            logits = torch.full((*tokens.shape, tokenizer.vocab), -30.0)
            logits[:, -1, ids[min(at, len(ids) - 1)]] = 0
            return logits, {"steps": state["steps"] + 1}

    ids = text if isinstance(text, list) else tokenizer.encode(text)
    model = Spells(torch.zeros(tokenizer.vocab, 1), tokenizer=tokenizer)
    return model, len(ids)


@torch.no_grad()
def by_whole_passes(model, prompt, tokens):
    """The likeliest token at every step, from a pass over the last `longest` tokens."""
    read, longest = prompt.tolist(), model.longest or 10**6
    for _ in range(tokens):
        read.append(int(model(Batch(inputs=torch.tensor([read[-longest:]])))[0, -1].argmax()))
    return read[len(prompt) :]


@pytest.mark.parametrize("name", [*RECURRENT, *CACHED, "hyena", "mega", "synthesizer", "s4"])
def test_greedy_takes_the_likeliest_token_of_whole_passes(name):
    model = build(name)
    want = by_whole_passes(model, PROMPT, 50)
    assert list(generate(model, PROMPT, tokens=50, temperature=0)) == want
    assert len(set(want)) > 1


@pytest.mark.parametrize("name", ["pre_ln", "hyena", "synthesizer"])
def test_a_prompt_longer_than_the_model_reads(name):
    model = build(name, length=6)
    prompt = torch.arange(20)
    assert list(generate(model, prompt, tokens=9, temperature=0)) == by_whole_passes(model, prompt, 9)


@pytest.mark.parametrize("name", ["pre_ln", "mamba"])
def test_without_a_state_the_same_is_written(name):
    model = build(name, length=80)
    want = list(generate(model, PROMPT, tokens=30, seed=1))
    model.traits = dataclasses.replace(model.traits, resumable=False)
    assert list(generate(model, PROMPT, tokens=30, seed=1)) == want


@pytest.mark.parametrize("name", RECURRENT)
def test_what_recurrences_keep_does_not_grow(name, monkeypatch):
    model, sizes = build(name), []
    extend = model.extend

    def spy(tokens, state):
        logits, state = extend(tokens, state)
        sizes.append((tokens.shape[1], state_bytes(state)))
        return logits, state

    monkeypatch.setattr(model, "extend", spy)
    for _ in generate(model, PROMPT, tokens=500):
        pass
    assert sizes[0] == (5, sizes[50][1])
    assert sizes[50] == sizes[499] == (1, sizes[0][1])
    assert len(sizes) == 500


def test_long_prompts_are_read_in_pieces():
    model = Resumed(torch.zeros(5, 5))
    list(generate(model, torch.ones(2 * PIECE + 3, dtype=torch.long), tokens=2))
    assert model.read == [(1, PIECE), (1, PIECE), (1, 3), (1, 1)]
    wide = Resumed(torch.zeros(2, 2**25))
    list(generate(wide, torch.ones(3, dtype=torch.long), tokens=1, temperature=0))
    assert wide.read == [(1, 2), (1, 1)]


def counts(logits, draws=4000, **options):
    how, generator = Sampling(**options), torch.Generator().manual_seed(7)
    found = torch.zeros(len(logits))
    for _ in range(draws):
        found[how.choose(logits, generator)] += 1
    return found


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_as_frequent_as_they_are_probable(temperature):
    stats = pytest.importorskip("scipy.stats")
    logits = torch.randn(9, generator=torch.Generator().manual_seed(2))
    expected = torch.softmax(logits.double() / temperature, 0) * 4000
    found = counts(logits, temperature=temperature)
    assert stats.chisquare(found.double(), expected).pvalue > 0.01
    assert stats.chisquare(found.double(), expected.flip(0)).pvalue < 1e-6


def test_top_k_and_top_p_leave_the_likeliest():
    logits = torch.tensor([0.1, 0.4, 0.3, 0.2]).log()
    probabilities = {
        (None, None): [0.1, 0.4, 0.3, 0.2],
        (2, None): [0, 4 / 7, 3 / 7, 0],
        (1, None): [0, 1, 0, 0],
        (9, 1.0): [0.1, 0.4, 0.3, 0.2],
        (None, 0.39): [0, 1, 0, 0],
        (None, 0.41): [0, 4 / 7, 3 / 7, 0],
        (None, 0.71): [0, 4 / 9, 3 / 9, 2 / 9],
        (2, 0.56): [0, 1, 0, 0],
        (2, 0.58): [0, 4 / 7, 3 / 7, 0],
        (None, 1e-9): [0, 1, 0, 0],
    }
    for (k, p), want in probabilities.items():
        got = Sampling(top_k=k, top_p=p).probabilities(logits)
        assert got.dtype == torch.float64
        assert torch.allclose(got, torch.tensor(want, dtype=torch.float64), atol=1e-7)
        assert set(counts(logits, 300, top_k=k, top_p=p).nonzero().flatten().tolist()) <= {
            i for i, q in enumerate(want) if q
        }


def test_of_equals_the_first_ones_are_kept():
    assert Sampling(top_k=2).probabilities(torch.zeros(5)).tolist() == [0.5, 0.5, 0, 0, 0]
    assert Sampling(temperature=0).choose(torch.tensor([0.0, 1, 1]), torch.Generator()) == 1


@pytest.mark.parametrize("temperature", [1e-300, 5e-324, 1e300])
def test_extreme_temperatures_and_logits(temperature):
    p = Sampling(temperature).probabilities(torch.tensor([-1e30, 1e30, -torch.inf, 5.0]))
    assert p.sum() == 1
    assert p[1] == p.max()
    for logits in (torch.tensor([0.0, torch.nan]), torch.full((3,), -torch.inf)):
        with pytest.raises(ValueError, match="not finite"):
            Sampling(temperature).probabilities(logits)


def test_the_seed_alone_decides():
    model = build("mamba")
    first = list(generate(model, PROMPT, tokens=30, seed=5))
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert list(generate(model, PROMPT, tokens=30, seed=5)) == first
    assert torch.equal(torch.random.get_rng_state(), before)
    assert list(generate(model, PROMPT, tokens=30, seed=6)) != first
    assert list(generate(model, PROMPT, tokens=30, seed=5, top_k=V, top_p=1.0)) == first


@pytest.mark.parametrize("name", ["mamba", "pre_ln", "lstm", "hyena", "synthesizer"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_do_not_depend_on_their_company(name, temperature):
    model = build(name, length=12)
    prompts = [[1, 2, 3], [4], [3, 2, 1], [7, 7, 7], [9], [1, 2, 3]]
    lasting = [9, 3, 12, 1, 12, 20]
    seeds = [1, 2, 3, 4, 5, 6]
    together = continue_batch(
        model, prompts, tokens=12, temperature=temperature, seed=seeds, done=lambda row, w: len(w) == lasting[row]
    )
    for prompt, n, seed, found in zip(prompts, lasting, seeds, together, strict=True):
        assert found == list(generate(model, prompt, tokens=min(n, 12), temperature=temperature, seed=seed))
    for rows in (1, 2):
        assert together == continue_batch(
            model,
            prompts,
            tokens=12,
            temperature=temperature,
            seed=seeds,
            done=lambda r, w: len(w) == lasting[r],
            rows=rows,
        )


def test_rows_of_one_length_run_together_and_leave_at_the_end():
    """Token 0 ends; 1 → 2 → 3 → 0, and 4 goes on for ever."""
    table = torch.eye(5)[[0, 2, 3, 0, 4]]
    tokenizer = Characters("abcde")
    tokenizer.end = 0
    model = Resumed(table, tokenizer=tokenizer)
    assert continue_batch(model, [[1], [4], [3], [1, 1]], tokens=4) == [[2, 3], [4] * 4, [], [2, 3]]
    assert model.read == [(3, 1), (2, 1), (2, 1), (1, 1), (1, 2), (1, 1), (1, 1)]
    assert continue_batch(model, [], tokens=3) == []


def test_an_empty_prompt_and_stop_tokens():
    tokenizer = Characters("\nabcd")
    model = Resumed(torch.eye(5)[[1, 2, 3, 4, 0]], tokenizer=tokenizer)
    assert list(generate(model, [], tokens=6, temperature=0)) == [1, 2, 3, 4, 0, 1]
    assert continue_batch(model, [[]], tokens=2) == [[1, 2]]
    assert list(generate(model, [], tokens=6, temperature=0, stop={3})) == [1, 2]
    assert "".join(stream_text(model, "", tokens=3, temperature=0)) == "abc"
    model.tokenizer = None
    with pytest.raises(ValueError, match="an empty prompt needs a tokenizer"):
        generate(model, [], tokens=1)


def test_tokens_that_the_tokenizer_lacks_are_never_written():
    model = Resumed(torch.eye(8)[[7] * 8], tokenizer=Characters("abcd"))
    assert set(generate(model, [1], tokens=50)) <= {0, 1, 2, 3}
    assert all(set(row) <= {0, 1, 2, 3} for row in continue_batch(model, [[1], [2]], tokens=9, temperature=1.0))


def test_modes_and_gradients_are_left_as_found():
    model = build("pre_ln", dropout=0.5).train()
    model.backbone.eval()
    modes = [module.training for module in model.modules()]
    stream = generate(model, PROMPT, tokens=8)
    first = [next(stream)]
    assert torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes
    first += stream
    assert first == list(generate(model.eval(), PROMPT, tokens=8))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"tokens": 0}, "tokens must be at least 1"),
        ({"temperature": -0.1}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"top_k": 0}, "top_k must be"),
        ({"top_p": 0.0}, "top_p must be"),
        ({"top_p": 1.1}, "top_p must be"),
    ],
)
def test_options_out_of_range(options, line):
    model = Fixed(torch.zeros(4, 4), tokenizer=Characters("abcd"))
    for write in (lambda **o: generate(model, [1], **o), lambda **o: continue_batch(model, [[1]], **o)):
        with pytest.raises(ValueError, match=line):
            write(**{"tokens": 3, **options})
    with pytest.raises(ValueError, match=line):
        stream_text(model, "a", **{"tokens": 3, **options})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"role": "classify"}, "only language models"),
        ({"traits": Traits(causal="leaky", bidirectional=True, resumable=False)}, "looks ahead"),
        ({"traits": Traits(causal="no", bidirectional=True, resumable=False)}, "looks ahead"),
    ],
)
def test_models_that_cannot_write(change, line):
    model = Fixed(torch.zeros(4, 4), tokenizer=Characters("abcd"))
    for name, value in change.items():
        setattr(model, name, value)
    for write in (lambda: generate(model, [1], tokens=1), lambda: continue_batch(model, [[1]], tokens=1)):
        with pytest.raises(ValueError, match=line):
            write()
    assert issubclass(Unsupported, ValueError)


def test_prompts_and_texts_that_do_not_fit():
    model = Fixed(torch.zeros(4, 4))
    with pytest.raises(ValueError, match="the prompt has the token 4; this model has tokens 0 to 3"):
        generate(model, [1, 4], tokens=1)
    with pytest.raises(ValueError, match="no tokenizer"):
        stream_text(model, "a", tokens=1)
    model.tokenizer = Characters("abcd")
    with pytest.raises(ValueError, match="none of the 4 characters"):
        stream_text(model, "é", tokens=1)
    for stop in ([""], "abc"):
        with pytest.raises(ValueError, match="stop must be texts"):
            stream_text(model, "a", tokens=1, stop=stop)
    with pytest.raises(ValueError, match="2 prompts, 1 seeds"):
        continue_batch(model, [[1], [2]], tokens=1, seed=[3])


TEXTS = ["naïve — 日本語 🙂!", "\N{REPLACEMENT CHARACTER}x", "plain", "🙂"]


@pytest.mark.parametrize("text", TEXTS)
def test_characters_come_whole(text):
    model, n = spelling(text, Bytes())
    pieces = list(stream_text(model, "?", tokens=n, temperature=0))
    assert "".join(pieces) == text
    assert len(pieces) == len(text) - text.count("\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("ids", [[0xE2, 0x82], [0xE2, 0x41], [0xFF, 0xFE, 0x41, 0xF0, 0x9F], [0x41, 0xFF]])
def test_bytes_that_are_no_text(ids):
    model, n = spelling(ids, Bytes())
    pieces = list(stream_text(model, "?", tokens=n, temperature=0))
    assert "".join(pieces) == Bytes().decode(ids)
    assert "".join(pieces[:-1]) == Bytes().decode(ids)[: len("".join(pieces[:-1]))]


class Fallback(Tokenizer):
    """As SentencePiece's byte fallback: a run of bytes is one text, or each of its bytes is unknown."""

    kind, vocab, prefix = "fallback", 258, 256

    def encode(self, text, *, special=None):
        return list(text.encode())

    def decode(self, tokens):
        out = []
        for is_byte, run in itertools.groupby(tokens, lambda token: token < 256):
            run = list(run)
            try:
                out.append(bytes(run).decode() if is_byte else "".join(" x"[token - 256] for token in run))
            except UnicodeDecodeError:
                out.append("\N{REPLACEMENT CHARACTER}" * len(run))
        return "".join(out)


@pytest.mark.parametrize(
    "ids", [[*"日本".encode(), 257, 257], [*"日".encode(), 0xE6, 257], [10, 0xFF, 256, 65], [257, 65]]
)
def test_a_decoder_that_judges_runs_of_bytes(ids):
    model, n = spelling(ids, Fallback())
    assert "".join(stream_text(model, "x", tokens=n, temperature=0)) == Fallback().decode(ids)


@pytest.mark.parametrize(
    ("stop", "want"),
    [
        ((), "one two three\nfour"),
        (("\n",), "one two three"),
        ((" th", "zz"), "one two"),
        (("three\nfive", "four"), "one two three\n"),
        (("one",), ""),
        (("r\nfour!",), "one two three\nfour"),
        (("tt", "o t"), "one tw"),
    ],
)
def test_stop_texts_end_it_and_are_not_emitted(stop, want):
    model, n = spelling("one two three\nfour", Bytes())
    assert "".join(stream_text(model, "?", tokens=n, temperature=0, stop=stop)) == want


def test_any_split_of_random_bytes_is_what_the_tokenizer_decodes():
    for seed in range(12):
        model = build("lstm", vocab=256)
        model.tokenizer = Bytes()
        ids = list(generate(model, Bytes().encode("é"), tokens=40, seed=seed, temperature=3.0))
        pieces = list(stream_text(model, "é", tokens=40, seed=seed, temperature=3.0))
        assert "".join(pieces) == Bytes().decode(ids)
        assert all(pieces)


def byte_level():
    """A byte-level BPE like GPT-2's, of a text's pairs."""
    tokenizers = pytest.importorskip("tokenizers")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([TEXTS[0]] * 3, trainer)
    return Fast(backend.to_str(), prefix=0)


def sentence_piece():
    """As Llama's: words begin with ▁, the blank before the first of a text is dropped, other characters are bytes."""
    tokenizers = pytest.importorskip("tokenizers")
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁the", "▁cat", "▁sat", "▁", "s", "!"]
    model = tokenizers.models.Unigram([(word, -1.0) for word in words], unk_id=0, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    decoders = tokenizers.decoders
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(parts)
    return Fast(backend.to_str(), prefix=0)


def answer(tokenizer, prompt, ids):
    """What is streamed behind a prompt by a model that writes these tokens."""
    model, n = spelling(ids, tokenizer)
    return "".join(stream_text(model, prompt, tokens=n, temperature=0))


@pytest.mark.parametrize("prompt", ["the cat", "the cat " * 50 + "the", "日本", "日" * 70, "日 the"])
@pytest.mark.parametrize("text", [" the cat sat", " 日本 🙂 the!", "s sat", "本s"])
def test_the_blank_before_the_first_word_is_kept(prompt, text):
    tokenizer = sentence_piece()
    whole, before = tokenizer.encode(prompt + text), tokenizer.encode(prompt)
    assert tokenizer.decode(whole) == prompt + text
    assert whole[: len(before)] == before
    assert answer(tokenizer, prompt, whole[len(before) :]) == text


def test_a_text_without_a_prompt_begins_without_a_blank():
    tokenizer = sentence_piece()
    assert answer(tokenizer, "", tokenizer.encode("the cat")) == "the cat"


def test_broken_bytes_behind_a_prompt_leave_it_alone():
    """The prompt's last character and the first bytes of the answer are one run, which is judged as a whole."""
    tokenizer = sentence_piece()
    first, second, third = (1 + byte for byte in "日".encode())
    cat = tokenizer.encode("the cat")[-1]
    assert tokenizer.decode([first, second, third]) == "日"
    assert answer(tokenizer, "日", [first, cat]) == "\N{REPLACEMENT CHARACTER} cat"
    assert answer(tokenizer, "日", [first, second, third, cat]) == "日 cat"


def world():
    pytest.importorskip("rwkv.rwkv_tokenizer")
    return World()


@pytest.mark.parametrize("make", [byte_level, pytest.param(world, marks=pytest.mark.slow)])
def test_subwords_of_real_tokenizers(make):
    tokenizer, text = make(), f"{TEXTS[0]} and more"
    model, n = spelling(text, tokenizer)
    pieces = list(stream_text(model, "x", tokens=n, temperature=0))
    assert "".join(pieces) == text
    assert len(pieces) > 3


def test_the_end_token_ends_the_text():
    tokenizer = Characters("ab.")
    tokenizer.end = 2
    model = Resumed(torch.eye(3)[[1, 2, 0]], tokenizer=tokenizer)
    assert list(stream_text(model, "a", tokens=9, temperature=0)) == ["b"]

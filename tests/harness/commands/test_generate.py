"""`zoobench generate`: what it prints, reads and refuses."""

import json

import pytest
import torch

import zoo
from harness.errors import UserError
from harness.records import find
from zoo.generate import stream_text
from zoo.tokenizers import Bytes
from zoo.types import Shape


@pytest.fixture
def model(monkeypatch):
    """What `open_model` finds under the name `run`."""
    torch.manual_seed(0)
    found = zoo.build("lstm", "lm", shape=Shape(length=16, vocab=256, outputs=256, width=8, depth=1)).eval()
    found.tokenizer = Bytes()

    def open_model(reference, root=None):
        if reference != "run":
            raise UserError(f"no run {reference}")
        return found

    monkeypatch.setattr(find, "open_model", open_model)
    return found


@pytest.fixture
def generate(call):
    return lambda *arguments, **given: call("generate", *arguments, **given)


def test_the_text_of_the_same_seed_is_printed(model, generate):
    want = "".join(stream_text(model, "In the", tokens=20, seed=3, temperature=0.7, top_k=9, top_p=0.9))
    options = ("--tokens", 20, "--seed", 3, "--temperature", 0.7, "--top-k", 9, "--top-p", 0.9)
    assert generate("run", "--prompt", "In the", *options).stdout == want + "\n"
    assert generate("run", "--prompt", "-", *options, text="In the").stdout == want + "\n"
    found = json.loads(generate("run", "--prompt", "In the", *options, "--json").stdout)
    assert (found["text"], found["prompt"], found["seed"], found["top_k"]) == (want, "In the", 3, 9)


def test_it_ends_before_a_stop_text(model, generate):
    command = ("run", "--tokens", 30, "--temperature", 3)
    whole = generate(*command).stdout
    stop = whole[5:7]
    assert generate(*command, "--stop", stop).stdout == whole[: whole.index(stop)] + "\n"


def test_interrupted_it_ends_quietly(model, generate, monkeypatch):
    def interrupted(*_, **__):
        yield "abc"
        raise KeyboardInterrupt

    monkeypatch.setattr("zoo.generate.stream_text", interrupted)
    result = generate("run", status=130)
    assert (result.stdout, result.stderr) == ("abc\n", "")


def test_a_model_that_cannot_write_is_refused_in_one_line(model, generate):
    assert generate("ran", status=2).stderr == "zoobench: no run ran\n"
    model.tokenizer = None
    assert generate("run", status=2).stderr == "zoobench: run: this model has no tokenizer: it cannot be given text\n"
    model.tokenizer, model.role = Bytes(), "classify"
    assert "only language models write text" in generate("run", status=2).stderr
    assert generate("run", "--prompt", "-", status=2, text=b"\xff").stderr.count("\n") == 1
    generate("run", "--top-p", 0, status=2)
    generate("run", "--tokens", 0, status=2)

"""A trained Mamba: the segmenter in the wheel typeseg in our modules, against the package's own NumPy."""

from importlib.resources import files

import numpy as np
import pytest
import torch

import zoo
from zoo.contract import Batch
from zoo.published import PretrainedError

typeseg = pytest.importorskip("typeseg")
kernel = pytest.importorskip("typeseg._mamba_kernel")
MIXED = '<p class="a">1 + 1 = 2</p><script>let x = [1, 2];</script> {"k": null}\nSELECT a FROM b;\n'
TEXTS = [" ", "a", "ab\n", "Ünïcödé — 漢字 🙂", "\0\t\x7f", MIXED, 8 * (MIXED + "def f(x):\n    return x\n")]


@pytest.fixture(scope="module")
def model():
    return zoo.load("typeseg")


@pytest.fixture(scope="module")
def weights():
    with np.load(str(files("typeseg") / "data" / "mamba_al.npz")) as stored:
        return {name.replace("__", "/"): stored[name] for name in stored.files}


def logits(model, tokens, mask=None):
    with torch.no_grad():
        return model(Batch(inputs=tokens, mask=mask))


@pytest.mark.parametrize("tokens", [*(list(text.encode()) for text in TEXTS), [*b"SELECT 1", 256, 256]], ids=len)
def test_outputs(model, weights, oracle, tokens):
    """The last ends in padding tokens."""
    want = torch.from_numpy(kernel.mamba_forward(np, weights, np.array(tokens)))
    got = logits(model, torch.tensor([tokens]))[0]
    oracle("mamba", "typeseg 0.2.7, trained segmenter").outputs(got, want)
    assert torch.equal(got.argmax(-1), want.argmax(-1))


def test_padding_changes_nothing(model):
    long, short = (model.tokenizer.encode(text) for text in (MIXED, MIXED[:31]))
    rows = torch.tensor([long, short + [256] * (len(long) - 31)])
    mask = torch.arange(len(long)) < torch.tensor([[len(long)], [31]])
    both = logits(model, rows, mask)
    torch.testing.assert_close(both[0], logits(model, torch.tensor([long]))[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(both[1, :31], logits(model, torch.tensor([short]))[0], rtol=0, atol=1e-4)


def test_labels(model):
    tokens = torch.tensor([model.tokenizer.encode(MIXED)])
    named = [model.labels[i] for i in logits(model, tokens)[0].argmax(-1).tolist()]
    assert {"html", "sql"} <= set(named)
    assert (model.role, model.shape.outputs, len(model.labels)) == ("masked", 35, 35)


def test_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PretrainedError, match=r"needs typeseg: pip install 'zoobench\[oracles\]'"):
        zoo.load("typeseg")

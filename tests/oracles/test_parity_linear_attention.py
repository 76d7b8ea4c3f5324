"""Linear attention against outputs and gradients of flash-linear-attention and Mamba-2."""

from pathlib import Path

import pytest
import torch

from zoo.ops.linear_attention import linear_attention, recurrent

PARITY = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "parity"
FORMS = {
    "naive": recurrent,
    "chunk 8": lambda *x, **y: linear_attention(*x, **y, chunk=8),
    "chunk 64": linear_attention,
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def load(name):
    safetensors = pytest.importorskip("safetensors.torch")
    path = PARITY / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no recorded outputs at {path}")
    recorded = safetensors.load_file(path)
    leaves = {
        key.removeprefix("input.").removeprefix("param."): x.requires_grad_()
        for key, x in recorded.items()
        if key.startswith(("input", "param."))
    }
    return recorded, leaves


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max().clamp(min=1e-6)).item()


def assert_gradients(y, recorded, leaves, tolerance):
    gradients = torch.autograd.grad((y * recorded["cotangent"]).sum(), list(leaves.values()))
    for name, gradient in zip(leaves, gradients, strict=True):
        want = recorded.get(f"grad.input.{name}", recorded.get(f"grad.{name}"))
        assert relative(gradient, want) < tolerance, name


def heads_first(x):
    return x.transpose(1, 2)


@forms
def test_gla_with_a_decay_per_channel_and_a_state(form):
    recorded, x = load("fla_gla")
    q, k, v, gk = (heads_first(x[name]) for name in ("q", "k", "v", "gk"))
    o, S = form(q * q.shape[-1] ** -0.5, k, v, gk, x["initial_state"])
    y = heads_first(o)
    assert relative(y, recorded["output"]) < 1e-9
    assert relative(S, recorded["state.final"]) < 1e-9
    assert_gradients(y, recorded, x, 1e-9)


@forms
def test_mamba2_with_a_decay_per_head(form):
    recorded, x = load("mamba2_ssd_minimal")
    o, S = form(heads_first(x["C"]), heads_first(x["B"]), heads_first(x["X"]), heads_first(x["A"]))
    y = heads_first(o)
    assert relative(y, recorded["output"]) < 1e-9
    assert relative(S.transpose(-1, -2), recorded["state.final"]) < 1e-9
    assert_gradients(y, recorded, x, 1e-9)

"""Linear attention alone against recorded outputs and gradients of flash-linear-attention and Mamba-2."""

import pytest
import torch

from zoo.ops.linear_attention import linear_attention, recurrent

FORMS = {
    "naive": recurrent,
    "chunk 8": lambda *x, **y: linear_attention(*x, **y, chunk=8),
    "chunk 64": linear_attention,
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def heads_first(x):
    return x.transpose(1, 2)


def compare(proof, recorded, x, o, S):
    y = heads_first(o)
    proof.outputs(y, recorded["output"], 1e-9)
    proof.outputs(S, recorded["state.final"], 1e-9)
    gradients = torch.autograd.grad((y * recorded["cotangent"]).sum(), list(x.values()))
    wanted = {name: recorded.get(f"grad.input.{name}", recorded.get(f"grad.{name}")) for name in x}
    proof.gradients(dict(zip(x, gradients, strict=True)), wanted, 1e-9)


@forms
def test_gla_with_a_decay_per_channel_and_a_state(parity, oracle, form):
    recorded, x = parity("fla_gla")
    q, k, v, gk = (heads_first(x[name]) for name in ("q", "k", "v", "gk"))
    o, S = form(q * q.shape[-1] ** -0.5, k, v, gk, x["initial_state"])
    compare(oracle("gla", "flash-linear-attention, naive_recurrent_gla (recorded)"), recorded, x, o, S)


@forms
def test_mamba2_with_a_decay_per_head(parity, oracle, form):
    recorded, x = parity("mamba2_ssd_minimal")
    o, S = form(heads_first(x["C"]), heads_first(x["B"]), heads_first(x["X"]), heads_first(x["A"]))
    proof = oracle("mamba2", "state-spaces/mamba, ssd_minimal (recorded)")
    compare(proof, recorded, x, o, S.transpose(-1, -2))

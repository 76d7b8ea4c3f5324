"""GLA's recurrence against that of flash-linear-attention, recorded in float64. For the layer: test_fla_recorded.py."""

import torch

from zoo.ops.linear_attention import linear_attention


def test_recurrence(oracle, parity):
    recorded, x = parity("fla_gla")
    q, k, v, gk = (x[name].transpose(1, 2) for name in ("q", "k", "v", "gk"))
    o, S = linear_attention(q * q.shape[-1] ** -0.5, k, v, gk, x["initial_state"])
    proof = oracle("gla", "flash-linear-attention, naive_recurrent_gla (recorded)")
    proof.outputs(o.transpose(1, 2), recorded["output"], 1e-9)
    proof.outputs(S, recorded["state.final"], 1e-9)
    gradients = torch.autograd.grad(o, list(x.values()), recorded["cotangent"].transpose(1, 2))
    wanted = {name: recorded[f"grad.input.{name}"] for name in x}
    proof.gradients(dict(zip(x, gradients, strict=True)), wanted, 1e-9)

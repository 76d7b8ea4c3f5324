"""H3 against its two recurrences written out, step by step and pair by pair (paper, section 3.1; official `step`)."""

import pytest
import torch

from zoo.architectures.h3 import H3
from zoo.contract import LayerContext

B, T, D, N = 2, 11, 6, 8


def reference(p, x, d, disc, layout):
    """Outputs of the official layer with parameters p, by loops over time, heads and channel pairs."""
    H = D // d
    q, k, v = (x @ p[f"{n}_proj.weight"].T + p[f"{n}_proj.bias"] for n in "qkv")
    A = torch.complex(-p["kernel.kernel.inv_A_real"].exp(), p["kernel.kernel.A_imag"])
    B_, C = torch.view_as_complex(p["kernel.kernel.B"]), torch.view_as_complex(p["kernel.kernel.C"][0])
    dt = p["kernel.kernel.log_dt"].exp()[:, None]
    if disc == "bilinear":
        dA, dB = (1 + dt * A / 2) / (1 - dt * A / 2), dt * B_ / (1 - dt * A / 2)
    else:
        dA, dB = (dt * A).exp(), B_ * ((dt * A).exp() - 1) / A
    shift = x.new_zeros(len(x), D, N)
    states, steps = {}, []
    for t in range(x.shape[1]):
        shift = torch.cat([torch.zeros_like(shift[..., :1]), shift[..., :-1]], -1)
        shift = shift + p["ssm_k_kernel.kernel.B"] * k[:, t, :, None]
        key = (shift * p["ssm_k_kernel.kernel.C"][0]).sum(-1) + p["ssm_k_D"] * k[:, t]
        out = {}
        for h in range(H):
            for j in range(d):
                total = 0.0
                for i in range(d):
                    u = key[:, h * d + i] * v[:, t, h * d + j]
                    s = dA[h] * states.get((h, i, j), 0.0) + dB[h] * u[:, None]
                    states[h, i, j] = s
                    total = total + q[:, t, h * d + i] * (2 * (C[h] * s).sum(-1).real + p["D"][h] * u)
                out[h * d + j if layout == "h d" else j * H + h] = total
        steps.append(torch.stack([out[c] for c in range(D)], -1))
    return torch.stack(steps, 1) @ p["output_linear.weight"].T + p["output_linear.bias"]


@pytest.mark.parametrize("layout", ["h d", "d h"])
@pytest.mark.parametrize(("d", "disc"), [(1, "zoh"), (2, "bilinear"), (3, "zoh")])
def test_outputs_and_gradients(oracle, d, disc, layout):
    torch.manual_seed(0)
    mixer = H3(
        LayerContext(width=D, length=T), d_state=N, head_dim=d, disc=disc, layout=layout, dt_min=0.01, dt_max=1.0
    )
    mixer = mixer.double()
    for parameter in mixer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    x, weight = (torch.randn(B, T, D, dtype=torch.float64) for _ in range(2))
    x.requires_grad_()
    names = dict(mixer.named_parameters())
    want = reference(names, x, d, disc, layout)
    y, _ = mixer(x)
    proof = oracle("h3", "recurrences written out, head_dim 1 to 3")
    proof.outputs(y, want)
    leaves = {"input": x, **names}
    got = torch.autograd.grad((y * weight).sum(), list(leaves.values()))
    expected = torch.autograd.grad((want * weight).sum(), list(leaves.values()))
    proof.gradients(dict(zip(leaves, got, strict=True)), dict(zip(leaves, expected, strict=True)))

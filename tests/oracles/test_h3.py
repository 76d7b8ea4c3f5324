"""H3 against the official layer of head_dim 1 (recorded), and against its two recurrences written out.

The recurrences go step by step and pair by pair (paper, section 3.1; the official `step`).
"""

import pytest
import torch

from zoo.architectures.h3 import H3
from zoo.contract import LayerContext

from .compare import in_pieces, leaves, shaken, vectors

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
    options = {"d_state": N, "head_dim": d, "disc": disc, "layout": layout, "dt_min": 0.01, "dt_max": 1.0}
    mixer, x = shaken(H3(LayerContext(width=D, length=T), **options)), vectors(B, T, D)
    want = reference(leaves(mixer), x, d, disc, layout)
    oracle("h3", "recurrences written out, head_dim 1 to 3").equal(mixer(x)[0], want, leaves(mixer, input=x))


def test_official(oracle, parity):
    """HazyResearch/H3, src/models/ssm/h3.py: outputs, gradients, steps, states, and both kernels."""
    data, official = parity("h3_headdim1")
    mixer, x = H3(LayerContext(width=16, length=32), d_state=8).double(), official.pop("input")
    mixer.load_state_dict(official)
    proof = oracle("h3", "HazyResearch/H3, H3 (recorded)")
    proof.recorded(mixer(x)[0], data, leaves(mixer, input=x), 1e-5, 1e-4)
    for sizes in (1, 32, [5, 1, 26]):
        y, state = in_pieces(mixer, x, sizes)
        proof.outputs(y, data["output.step"])
        proof.outputs(state["shift"], data["state.final.shift"])
        proof.outputs(state["diag"], data["state.final.diag"])
    impulse = torch.eye(1, 32, dtype=torch.float64)[..., None].expand(-1, -1, 16)
    for name, kernel in (("aux.K_shift", mixer.ssm_k_kernel), ("aux.K_diag", mixer.kernel)):
        torch.testing.assert_close(
            kernel["kernel"](impulse, None, None, torch.zeros(16))[0].mT, data[name], rtol=0, atol=1e-12
        )

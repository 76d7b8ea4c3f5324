"""The LRU against the paper's appendix A, step by step in float64."""

import pytest
import torch

from zoo.architectures.lru import LRU
from zoo.contract import LayerContext

from .compare import copies, leaves, shaken, vectors

B, T, H, N = 2, 11, 6, 5


def reference(p, u, x0, gelu):
    """x_t = λ x_{t−1} + γ B u_t, y_t = Re(C x_t) + D u_t, then GELU and W₁ g σ(W₂ g). Returns all, and the last x."""
    Lambda = torch.exp(-torch.exp(p["nu_log"]) + 1j * torch.exp(p["theta_log"]))
    B_norm = (p["B_re"] + 1j * p["B_im"]) * torch.exp(p["gamma_log"])[:, None]
    C, x, outputs = p["C_re"] + 1j * p["C_im"], x0, []
    for t in range(u.shape[1]):
        x = Lambda * x + (B_norm @ u[:, t].to(x.dtype).T).T
        y = (x @ C.T).real + p["D"] * u[:, t]
        if gelu == "erf":
            g = y * 0.5 * (1 + torch.erf(y / 2**0.5))
        else:
            g = 0.5 * y * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (y + 0.044715 * y**3)))
        gate = torch.sigmoid(g @ p["out2.weight"].T + p["out2.bias"])
        outputs.append((g @ p["out1.weight"].T + p["out1.bias"]) * gate)
    return torch.stack(outputs, 1), x


@pytest.mark.parametrize("options", [{}, {"r_min": 0.9, "r_max": 0.999, "max_phase": 0.3, "gelu": "erf"}], ids=str)
def test_layer_is_the_recurrence_of_the_paper(oracle, options):
    torch.manual_seed(1)
    mixer, x = shaken(LRU(LayerContext(width=H, length=T), d_hidden=N, **options), 0.1), vectors(B, T, H)
    theirs = copies(mixer)
    x0 = torch.randn(B, N, dtype=torch.complex128)
    want, last = reference(theirs, x, x0, options.get("gelu", "tanh"))
    y, state = mixer(x, state={"x": torch.view_as_real(x0)})
    proof = oracle("lru", "the paper's appendix A, step by step in float64")
    proof.equal(y, want, leaves(mixer, input=x), {"input": x, **theirs})
    proof.outputs(state["x"], torch.view_as_real(last))
    proof.outputs(mixer(x)[0], reference(theirs, x, torch.zeros_like(x0), options.get("gelu", "tanh"))[0])

"""GSS against gated-state-spaces-pytorch, and against its recurrence step by step in float64."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.gss import GSS
from zoo.contract import LayerContext

from .compare import copies, leaves, shaken, swapped, vectors

B, T, D = 2, 11, 8
NAMES = {
    "to_u.weight": "to_u.0.weight",
    "to_v.weight": "to_v.0.weight",
    "to_gate.weight": "to_gate.weight",
    "to_out.weight": "to_out.weight",
    "to_out.bias": "to_out.bias",
    **{f"dss.{n}": f"dss.{n}" for n in ("norm.weight", "norm.bias", "Lambda_real", "Lambda_imag", "C_real", "C_imag")},
    "dss.param_D": "dss.param_D",
}


def build(**options):
    torch.manual_seed(1)
    mixer = GSS(LayerContext(width=D, length=T), **({"d_state": 6, "d_hidden": 3} | options))
    return shaken(mixer, 0.2), vectors(B, T, D)


@pytest.mark.parametrize(("expand", "imag_exp"), [(4.0, True), (2.0, False)])
def test_layer_is_that_of_the_package(oracle, expand, imag_exp):
    """Whose layer is x + f(norm(x)): norm and residual are taken off."""
    package = pytest.importorskip("gated_state_spaces_pytorch.gss")
    mixer, x = build(expand=expand, imag_exp=imag_exp)
    theirs = package.GSS(
        dim=D, dim_expansion_factor=expand, dss_kernel_N=6, dss_kernel_H=3, dss_kernel_lambda_imag_exp=imag_exp
    ).double()
    theirs.load_state_dict({NAMES[n]: p for n, p in mixer.state_dict().items()}, strict=False)
    norm, theirs.norm = theirs.norm, torch.nn.Identity()
    proof = oracle("gss", "gated-state-spaces-pytorch 0.1.0, GSS")
    proof.layers(mixer, theirs, norm(x), lambda x: theirs(x) - x, renamed=swapped(NAMES))


def reference(p, x, state):
    """The layer as a recurrence, one step after the other."""
    Lambda = -p["dss.Lambda_real"].exp() + 1j * p["dss.Lambda_imag"].exp()
    C = (p["dss.C_real"] + 1j * p["dss.C_imag"]) * (torch.exp(Lambda) - 1) / Lambda
    outputs = []
    for step in x.unbind(1):
        u, v = F.gelu(step @ p["to_u.weight"].T), F.gelu(step @ p["to_v.weight"].T)
        centred = v - v.mean(-1, keepdim=True)
        w = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        w = w * p["dss.norm.weight"] + p["dss.norm.bias"]
        state = torch.exp(Lambda) * state + w[..., None]
        y = (C * state).sum(-1).real + p["dss.param_D"] * w
        outputs.append((y @ p["to_gate.weight"].T * u) @ p["to_out.weight"].T + p["to_out.bias"])
    return torch.stack(outputs, 1), state


def test_layer_is_its_recurrence(oracle):
    mixer, x = build()
    theirs = copies(mixer)
    x0 = torch.randn(B, 3, 6, dtype=torch.complex128)
    want, last = reference(theirs, x, x0)
    y, state = mixer(x, state={"x": torch.view_as_real(x0)})
    proof = oracle("gss", "the paper's kernel as a recurrence, step by step in float64")
    proof.equal(y, want, leaves(mixer, input=x), {"input": x, **theirs})
    proof.outputs(state["x"], torch.view_as_real(last))

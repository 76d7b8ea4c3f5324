"""S5 against the s5-pytorch package, and against the official layer's formulas step by step in float64."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.s5 import S5
from zoo.contract import LayerContext

B, T, H = 2, 11, 6


def build(causal=True, **options):
    torch.manual_seed(1)
    sizes = {"d_state": 8, "blocks": 2, "dt_min": 0.01, "dt_max": 0.5}
    mixer = S5(LayerContext(width=H, length=T, causal=causal), **(sizes | options)).double()
    for parameter in mixer.parameters():
        parameter.data = parameter.data + 0.2 * torch.randn_like(parameter)
    return mixer, torch.randn(B, T, H, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
@pytest.mark.parametrize("bidir", [False, True])
def test_system_is_that_of_the_package(oracle, discretization, bidir):
    """It keeps every mode (conj_sym=False) and computes in complex64."""
    package = pytest.importorskip("s5.s5_model")
    mixer, _ = build(not bidir, conj_sym=False, discretization=discretization)
    mixer.float()
    Lambda = torch.complex(mixer.Lambda_re, mixer.Lambda_im).detach()
    eye = torch.eye(8, dtype=torch.complex64)
    theirs = package.S5SSM(
        Lambda.clone(), eye, eye, H, 8, 0.01, 0.5, discretization=discretization, bcInit="dense", bidir=bidir
    )
    C = torch.cat([torch.view_as_complex(getattr(mixer, name)) for name in mixer.readers], dim=1)
    for parameter, value in (
        (theirs.B, mixer.B),
        (theirs.C, C),
        (theirs.D, mixer.D),
        (theirs.log_step, mixer.log_step),
    ):
        parameter.data = value.detach().clone().reshape(parameter.shape)
    x = torch.randn(B, T, H, requires_grad=True)
    want = torch.stack([theirs(row) for row in x])
    got, _ = mixer.system(x)
    proof = oracle("s5", "s5-pytorch 0.2.1, S5SSM")
    proof.outputs(got, want)
    weight = torch.randn_like(want)
    wanted = torch.autograd.grad(
        (want * weight).sum(), [x, theirs.Lambda, theirs.B, theirs.C, theirs.D, theirs.log_step]
    )
    readers = [getattr(mixer, name) for name in mixer.readers]
    own = [x, mixer.Lambda_re, mixer.Lambda_im, mixer.B, mixer.D, mixer.log_step, *readers]
    x_, re, im, B_, D, step, *C_ = torch.autograd.grad((got * weight).sum(), own)
    C_ = torch.cat([torch.view_as_complex(c) for c in C_], dim=1)
    names = ("input", "Lambda", "B", "C", "D", "log_step")
    ours = dict(zip(names, (x_, torch.complex(re, im), B_, C_, D, step[:, 0]), strict=True))
    proof.gradients(ours, dict(zip(names, wanted, strict=True)))


def test_state_is_that_of_the_package(oracle):
    package = pytest.importorskip("s5.s5_model")
    mixer, _ = build(conj_sym=False)
    mixer.float()
    eye = torch.eye(8, dtype=torch.complex64)
    theirs = package.S5SSM(
        torch.complex(mixer.Lambda_re, mixer.Lambda_im).detach(), eye, eye, H, 8, 0.01, 0.5, bcInit="dense"
    )
    for name in ("B", "D", "log_step"):
        getattr(theirs, name).data = getattr(mixer, name).detach().clone().reshape(getattr(theirs, name).shape)
    theirs.C.data = torch.view_as_complex(mixer.C.detach().clone())
    x, x0 = torch.randn(1, T, H), torch.randn(1, 8, 2)
    with torch.no_grad():
        want, last = theirs(x[0], state=torch.view_as_complex(x0)[0], return_state=True)
        got, state = mixer.system(x, state={"x": x0})
    proof = oracle("s5", "s5-pytorch 0.2.1, S5SSM")
    proof.outputs(got[0], want)
    proof.outputs(state["x"][0], torch.view_as_real(last))


def reference(p, u, *, discretization, conj_sym, clip_eigs, activation, lengths):
    """The official layer without norm and residual, mode by mode and step by step; padding counts as absent."""
    re = p["Lambda_re"].clamp(max=-1e-4) if clip_eigs else p["Lambda_re"]
    Lambda, step = re + 1j * p["Lambda_im"], p["log_step"][:, 0].exp()
    B_ = p["B"][..., 0] + 1j * p["B"][..., 1]
    if discretization == "zoh":
        a, b = torch.exp(Lambda * step), ((torch.exp(Lambda * step) - 1) / Lambda)[:, None] * B_
    else:
        a, b = (1 + step / 2 * Lambda) / (1 - step / 2 * Lambda), (step / (1 - step / 2 * Lambda))[:, None] * B_
    ys = []
    for row, n in zip(u, lengths, strict=True):
        y = p["D"] * row[:n]
        for name, order in (("C", range(n)), ("C1", range(n)), ("C2", range(n - 1, -1, -1))):
            if name not in p:
                continue
            C, x, found = p[name][..., 0] + 1j * p[name][..., 1], torch.zeros_like(a), [None] * n
            for t in order:
                x = a * x + b @ row[t].to(b.dtype)
                found[t] = (2 if conj_sym else 1) * (C @ x).real
            y = y + torch.stack(found)
        g = F.gelu(y, approximate="tanh")
        if activation != "gelu":
            gate = torch.sigmoid(g @ p["out2.weight"].T + p["out2.bias"])
            value = {"half_glu1": g, "half_glu2": y}.get(activation)
            g = (g @ p["out1.weight"].T + p["out1.bias"] if value is None else value) * gate
        ys.append(g)
    return torch.cat(ys)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"discretization": "bilinear", "activation": "half_glu2"},
        {"conj_sym": False, "activation": "full_glu"},
        {"clip_eigs": True, "activation": "gelu", "blocks": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("causal", [True, False])
def test_layer_is_the_official_recurrence(oracle, options, causal):
    mixer, x = build(causal, **options)
    lengths = (T, 4)
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    theirs = {name: p.detach().clone().requires_grad_() for name, p in mixer.named_parameters()}
    chosen = {"discretization": "zoh", "conj_sym": True, "clip_eigs": False, "activation": "half_glu1"} | options
    chosen.pop("blocks", None)
    want = reference(theirs, x, **chosen, lengths=lengths)
    y = mixer(x, mask=mask)[0][mask]
    proof = oracle("s5", "lindermanlab/S5, formulas step by step in float64")
    proof.outputs(y, want)
    weight = torch.randn_like(y)
    found = []
    for out, parameters in ((y, dict(mixer.named_parameters())), (want, theirs)):
        values = torch.autograd.grad((out * weight).sum(), [x, *parameters.values()])
        found.append(dict(zip(["input", *parameters], values, strict=True)))
    proof.gradients(*found)

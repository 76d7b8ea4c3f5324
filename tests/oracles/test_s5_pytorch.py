"""S5 against the s5-pytorch package, and against the official layer's formulas step by step in float64."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.s5 import S5
from zoo.contract import LayerContext

from .compare import copies, leaves, shaken, vectors

B, T, H = 2, 11, 6


def build(causal=True, **options):
    torch.manual_seed(1)
    sizes = {"d_state": 8, "blocks": 2, "dt_min": 0.01, "dt_max": 0.5}
    return shaken(S5(LayerContext(width=H, length=T, causal=causal), **(sizes | options)), 0.2), vectors(B, T, H)


def the_package(mixer, **options):
    """Its system under our parameters, or skip; it computes in complex64."""
    package = pytest.importorskip("s5.s5_model")
    Lambda, eye = torch.complex(mixer.Lambda_re, mixer.Lambda_im).detach(), torch.eye(8, dtype=torch.complex64)
    theirs = package.S5SSM(Lambda.clone(), eye, eye, H, 8, 0.01, 0.5, bcInit="dense", **options)
    for name in ("B", "D", "log_step"):
        getattr(theirs, name).data = getattr(mixer, name).detach().clone().reshape(getattr(theirs, name).shape)
    readers = [torch.view_as_complex(getattr(mixer, name).detach()) for name in mixer.readers]
    theirs.C.data = torch.cat(readers, dim=1).reshape(theirs.C.shape)
    return theirs


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
@pytest.mark.parametrize("bidir", [False, True])
def test_system_is_that_of_the_package(oracle, discretization, bidir):
    """It keeps every mode, as conj_sym=False does."""
    mixer, _ = build(not bidir, conj_sym=False, discretization=discretization)
    theirs = the_package(mixer.float(), discretization=discretization, bidir=bidir)

    def to_ours(official):
        Lambda = torch.view_as_real(official.pop("Lambda"))
        readers = official.pop("C").split(8, dim=1)
        found = {name: torch.view_as_real(part) for name, part in zip(mixer.readers, readers, strict=True)}
        step = official.pop("log_step")[:, None]
        return {**official, **found, "Lambda_re": Lambda[:, 0], "Lambda_im": Lambda[:, 1], "log_step": step}

    own = {name: getattr(mixer, name) for name in ("Lambda_re", "Lambda_im", "B", "D", "log_step", *mixer.readers)}
    official = {name: getattr(theirs, name) for name in ("Lambda", "B", "C", "D", "log_step")}
    x = torch.randn(B, T, H, requires_grad=True)
    proof = oracle("s5", "s5-pytorch 0.2.1, S5SSM")
    want = torch.stack([theirs(row) for row in x])
    proof.equal(mixer.system(x)[0], want, {"input": x, **own}, {"input": x, **official}, renamed=to_ours)


def test_state_is_that_of_the_package(oracle):
    mixer, _ = build(conj_sym=False)
    theirs = the_package(mixer.float())
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
    theirs = copies(mixer)
    chosen = {"discretization": "zoh", "conj_sym": True, "clip_eigs": False, "activation": "half_glu1"} | options
    chosen.pop("blocks", None)
    want = reference(theirs, x, **chosen, lengths=lengths)
    y = mixer(x, mask=mask)[0][mask]
    proof = oracle("s5", "lindermanlab/S5, formulas step by step in float64")
    proof.equal(y, want, leaves(mixer, input=x), {"input": x, **theirs})

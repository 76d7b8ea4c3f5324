"""S4 and S4D against state-spaces/s4: S4's definition, dense and step by step; a recorded S4D; initial values."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from zoo.architectures.s4 import S4
from zoo.architectures.s4d import S4D, initial
from zoo.contract import LayerContext
from zoo.layers import hippo

from .compare import S4_NAMES, copies, in_pieces, relative, shaken, vectors

B, T, H, N = 2, 12, 4, 8


def both(x):
    return torch.cat([x, x.conj()], dim=-1)


def dense(p, l_kernel):
    """Ā (H, N, N), B̄ (H, N), C (K, H, N) over both modes of each pair, from parameters under official names."""
    A = both(-p["A_real"].exp() - 1j * p["A_imag"])
    P, B_ = both(torch.view_as_complex(p["P"])), both(torch.view_as_complex(p["B"])[0])
    C, dt = both(torch.view_as_complex(p["C"])), p["inv_dt"].exp()
    full_A, full_B, full_C = [], [], []
    for h in range(H):
        s = h % len(A)
        matrix = dt[h] * (torch.diag(A[s]) - sum(torch.outer(q, q.conj()) for q in P[:, s]))
        eye = torch.eye(N, dtype=matrix.dtype)
        inverse = torch.linalg.inv(eye - matrix / 2)
        full_A.append(inverse @ (eye + matrix / 2))
        full_B.append(inverse @ (dt[h] * B_[s]))
        power = eye
        for _ in range(l_kernel):
            power = power @ full_A[-1]
        full_C.append(C[:, h] @ torch.linalg.inv(eye - power) if l_kernel else C[:, h])
    return torch.stack(full_A), torch.stack(full_B), torch.stack(full_C, 1)


def reference(p, x, l_kernel):
    """The layer of the paper, one step after the other. Returns outputs and the last state (first halves)."""
    names = {name.removeprefix("layer.kernel."): value for name, value in p.items()}
    A, B_, C = dense(names, l_kernel)
    state, outputs = torch.zeros(len(x), H, N, dtype=torch.complex128), []
    for u in x.unbind(1):
        state = torch.einsum("hmn,bhn->bhm", A, state) + B_ * u[:, :, None]
        y = torch.einsum("khn,bhn->bkh", C, state).real + p["layer.D"] * u[:, None]
        outputs.append(F.gelu(y.flatten(1)))
    z = torch.stack(outputs, 1) @ p["output_linear.0.weight"].T + p["output_linear.0.bias"]
    value, gate = z.chunk(2, dim=-1)
    return value * torch.sigmoid(gate), torch.view_as_real(state[..., : N // 2])


def pair(length, **options):
    """Our layer with random parameters, and the same as leaves under official names."""
    torch.manual_seed(1)
    mixer = shaken(S4(LayerContext(width=H, length=length), d_state=N, dt_min=0.01, dt_max=0.5, **options))
    return mixer, {S4_NAMES[name]: p for name, p in copies(mixer).items()}, vectors(B, T, H)


def own(mixer, x):
    """Our leaves under official names."""
    return {"input": x, **{S4_NAMES[name]: p for name, p in mixer.named_parameters()}}


@pytest.mark.parametrize(
    "options",
    [{}, {"init": "fout"}, {"init": "legt", "rank": 2}, {"n_ssm": 2, "init": "hippo"}, {"channels": 2, "rank": 3}],
    ids=str,
)
@pytest.mark.parametrize("length", [T, T + 5, 5])
def test_layer_is_the_dense_recurrence(oracle, options, length):
    """With C̃ for as many steps as the input has, for more, and for fewer."""
    mixer, theirs, x = pair(length, **options)
    proof = oracle("s4", "the paper's recurrence, dense bilinear in float64")
    want, last = reference(theirs, x, length)
    proof.equal(mixer(x)[0], want, own(mixer, x), {"input": x, **theirs})
    y, state = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.float64))
    proof.equal(y, want, own(mixer, x), {"input": x, **theirs})
    proof.outputs(state["x"], last)
    y, state = in_pieces(mixer, x)
    proof.outputs(y, want)
    proof.outputs(state["x"], last)


def test_an_untouched_official_state_dict(oracle):
    """l_kernel 0: C is C. Like the official layer we then learn C̃ for the first input's length."""
    mixer, theirs, x = pair(30)
    mixer.l_kernel.zero_()
    want, _ = reference(theirs, x, 0)
    y, _ = mixer(x)
    proof = oracle("s4", "the paper's recurrence, dense bilinear in float64")
    proof.outputs(y, want)
    attuned = theirs | {"layer.kernel.C": mixer.C.detach().clone().requires_grad_()}
    proof.equal(y, reference(attuned, x, T)[0], own(mixer, x), {"input": x, **attuned})


@pytest.mark.parametrize("size", [8, 16])
def test_initial_values(oracle, parity, size):
    recorded, _ = parity("s4_init")
    proof = oracle("s4", "state-spaces/s4, nplr (recorded)")
    A, B_, _ = hippo.transition("legs", size)
    w, P, b, _ = hippo.nplr("legs", size, clip=None)
    proof.outputs(torch.from_numpy(A), recorded[f"legs.A.{size}"])
    proof.outputs(torch.from_numpy(B_), recorded[f"legs.B.{size}"])
    proof.outputs(torch.view_as_real(torch.from_numpy(w)), recorded[f"nplr.W.{size}"])
    proof.outputs(torch.from_numpy(np.abs(P)), recorded[f"nplr.P_abs.{size}"].reshape(P.shape))
    proof.outputs(torch.from_numpy(np.abs(b)), recorded[f"nplr.B_abs_noclip.{size}"])
    product = recorded[f"nplr.PconjB_noclip.{size}"]
    proof.outputs(torch.view_as_real(torch.from_numpy(P[0].conj() * b)), product)
    clipped = torch.from_numpy(np.abs(hippo.nplr("legs", size).B))
    proof.outputs(clipped, recorded[f"s4d.B_abs.legs.{size}"].double())  # made in float32; tells the phase of the clip


def test_s4d(oracle, parity):
    """Outputs, gradients, the kernel, steps and the state of S4Block with SSMKernelDiag."""
    data, official = parity("s4d_legs_zoh")
    mixer = S4D(LayerContext(width=16, length=32), d_state=16, init="legs").double()
    weights = {name: official[S4_NAMES[name]].reshape(p.shape) for name, p in mixer.named_parameters()}
    y, _ = functional_call(mixer, weights, (official["input"].transpose(1, 2),))
    oracle("s4d", "state-spaces/s4, S4Block with SSMKernelDiag (recorded)").recorded(y.transpose(1, 2), data, official)
    mixer.load_state_dict({**mixer.state_dict(), **weights})
    steps, state = in_pieces(mixer, data["input"].transpose(1, 2))
    assert relative(mixer.kernel(32), data["aux.K"][0]) < 1e-9
    assert relative(steps.transpose(1, 2), data["output.step"]) < 1e-9
    assert relative(state["x"], data["state.final"]) < 1e-9


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("init", ["lin", "inv", "legs"])
def test_initial_spectrum_of_s4d(parity, init, size):
    """Official A, made in float32; B but for the clip at 2, which the official code applies to Im B, not to |B|."""
    data, _ = parity("s4_init")
    re, im, B_ = initial(init, size)
    assert relative(torch.from_numpy(np.stack([re, im], -1)), data[f"s4d.A.{init}.{size}"]) < 1e-6
    assert np.abs(B_ - data[f"s4d.B_abs.{init}.{size}"].numpy()).max() < 5e-3
    if init == "legs":
        assert relative(torch.from_numpy(im), data[f"nplr.W.{size}"][:, 1]) < 1e-9

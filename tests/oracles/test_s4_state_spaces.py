"""S4 against its definition, dense and step by step in float64, and against the official initialisation (recorded)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.s4 import S4
from zoo.contract import LayerContext
from zoo.layers import hippo

B, T, H, N = 2, 12, 4, 8
OFFICIAL = {
    "log_dt": "layer.kernel.inv_dt",
    "log_A_real": "layer.kernel.A_real",
    "A_imag": "layer.kernel.A_imag",
    "P": "layer.kernel.P",
    "B": "layer.kernel.B",
    "C": "layer.kernel.C",
    "D": "layer.D",
    "output.weight": "output_linear.0.weight",
    "output.bias": "output_linear.0.bias",
}


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
    mixer = S4(LayerContext(width=H, length=length), d_state=N, dt_min=0.01, dt_max=0.5, **options).double()
    for parameter in mixer.parameters():
        parameter.data = parameter.data + 0.3 * torch.randn_like(parameter)
    theirs = {OFFICIAL[name]: p.detach().clone().requires_grad_() for name, p in mixer.named_parameters()}
    return mixer, theirs, torch.randn(B, T, H, dtype=torch.float64, requires_grad=True)


def gradients(y, x, parameters, weight):
    found = torch.autograd.grad((y * weight).sum(), [x, *parameters.values()])
    return dict(zip(["input", *parameters], found, strict=True))


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
    y, _ = mixer(x)
    proof.outputs(y, want)
    weight = torch.randn_like(y)
    ours = {OFFICIAL[name]: p for name, p in mixer.named_parameters()}
    wanted = gradients(want, x, theirs, weight)
    proof.gradients(gradients(y, x, ours, weight), wanted)
    y, state = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.float64))
    proof.outputs(y, want)
    proof.outputs(state["x"], last)
    proof.gradients(gradients(y, x, ours, weight), wanted)
    state, steps = mixer.init_state(B, device="cpu", dtype=torch.float64), []
    with torch.no_grad():
        for t in range(T):
            step, state = mixer(x[:, t : t + 1], state=state)
            steps.append(step)
    proof.outputs(torch.cat(steps, 1), want)
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
    weight = torch.randn_like(y)
    ours = {OFFICIAL[name]: p for name, p in mixer.named_parameters()}
    wanted = gradients(reference(attuned, x, T)[0], x, attuned, weight)
    proof.gradients(gradients(y, x, ours, weight), wanted)


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

"""S4D against the official layer (state-spaces/s4, models/s4/s4.py, run in float64)."""

import numpy as np
import pytest
import torch

from zoo.architectures.s4d import S4D, initial
from zoo.contract import LayerContext

OFFICIAL = {
    "log_dt": "layer.kernel.inv_dt",
    "log_A_real": "layer.kernel.A_real",
    "A_imag": "layer.kernel.A_imag",
    "B": "layer.kernel.B",
    "C": "layer.kernel.C",
    "D": "layer.D",
    "output.weight": "output_linear.0.weight",
    "output.bias": "output_linear.0.bias",
}


def close(got, expected, tolerance=1e-9):
    """Equal to `tolerance` of the largest entry."""
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * expected.abs().max().item())


@pytest.fixture
def official(parity):
    """The stored tensors, and our layer under the same parameters."""
    data = parity("s4d_legs_zoh")[0]
    mixer = S4D(LayerContext(width=16, length=32), d_state=16, init="legs").double()
    shapes = {name: p.shape for name, p in mixer.named_parameters()}
    mixer.load_state_dict({name: data[f"param.{there}"].reshape(shapes[name]) for name, there in OFFICIAL.items()})
    return data, mixer


def test_outputs_and_gradients(official, oracle):
    data, mixer = official
    x = data["input"].transpose(1, 2).requires_grad_()
    y, _ = mixer(x)
    proof = oracle("s4d", "state-spaces/s4, S4Block with SSMKernelDiag (recorded)")
    proof.outputs(y.transpose(1, 2), data["output"], 1e-9)
    y.backward(data["cotangent"].transpose(1, 2))
    own = dict(mixer.named_parameters())
    got = {"input": x.grad.transpose(1, 2), **{name: p.grad for name, p in own.items()}}
    want = {name: data[f"grad.{OFFICIAL[name]}"].reshape(p.shape) for name, p in own.items()}
    proof.gradients(got, {"input": data["grad.input"], **want}, 1e-9)


def test_kernel_steps_and_state(official):
    data, mixer = official
    close(mixer.kernel(32), data["aux.K"][0])
    state, steps = mixer.init_state(2, device="cpu", dtype=torch.float64), []
    with torch.no_grad():
        for u in data["input"].unbind(2):
            y, state = mixer(u[:, None], state=state)
            steps.append(y[:, 0])
    close(torch.stack(steps, 2), data["output.step"])
    close(state["x"], data["state.final"])


@pytest.mark.parametrize("N", [8, 16])
@pytest.mark.parametrize("init", ["lin", "inv", "legs"])
def test_initial_spectrum(parity, init, N):
    """Official A, made in float32; B but for the clip at 2, which the official code applies to Im B, not to |B|."""
    data = parity("s4_init")[0]
    re, im, B = initial(init, N)
    close(torch.from_numpy(np.stack([re, im], -1)), data[f"s4d.A.{init}.{N}"], 1e-6)
    assert np.abs(B - data[f"s4d.B_abs.{init}.{N}"].numpy()).max() < 5e-3


@pytest.mark.parametrize("N", [8, 16])
def test_initial_legs_eigenvalues(parity, N):
    data = parity("s4_init")[0]
    close(torch.from_numpy(initial("legs", N)[1]), data[f"nplr.W.{N}"][:, 1])

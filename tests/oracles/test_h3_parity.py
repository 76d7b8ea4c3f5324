"""H3 against the official layer (HazyResearch/H3, src/models/ssm/h3.py, run in float64; head_dim 1)."""

import pytest
import torch

from zoo.architectures.h3 import H3
from zoo.contract import LayerContext

SOURCE = "HazyResearch/H3, H3 (recorded)"


@pytest.fixture
def official(parity):
    recorded, leaves = parity("h3_headdim1")
    mixer = H3(LayerContext(width=16, length=32), d_state=8).double()
    mixer.load_state_dict({name: value for name, value in leaves.items() if name != "input"})
    return recorded, mixer


def test_outputs_and_gradients(oracle, official):
    recorded, mixer = official
    x = recorded["input"].clone().requires_grad_()
    y, _ = mixer(x)
    proof = oracle("h3", SOURCE)
    proof.outputs(y, recorded["output"])
    y.backward(recorded["cotangent"])
    got = {"input": x.grad} | {name: p.grad for name, p in mixer.named_parameters()}
    proof.gradients(got, {k.removeprefix("grad."): v for k, v in recorded.items() if k.startswith("grad.")})


def test_steps_states_and_pieces(oracle, official):
    recorded, mixer = official
    proof = oracle("h3", SOURCE)
    for sizes in ([1] * 32, [32], [5, 1, 26]):
        state, pieces = mixer.init_state(2, device="cpu", dtype=torch.float64), []
        with torch.no_grad():
            for piece in recorded["input"].split(sizes, dim=1):
                y, state = mixer(piece, state=state)
                pieces.append(y)
        proof.outputs(torch.cat(pieces, 1), recorded["output.step"])
        proof.outputs(state["shift"], recorded["state.final.shift"])
        proof.outputs(state["diag"], recorded["state.final.diag"])


def test_kernels(official):
    recorded, mixer = official
    impulse = torch.eye(1, 32, dtype=torch.float64)[..., None].expand(-1, -1, 16)
    for name, kernel in (("aux.K_shift", mixer.ssm_k_kernel), ("aux.K_diag", mixer.kernel)):
        torch.testing.assert_close(kernel["kernel"](impulse, None, None)[0].mT, recorded[name], rtol=0, atol=1e-12)

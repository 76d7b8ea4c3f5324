"""Hyena against the official operator (HazyResearch/safari, standalone_hyena.py, run in float64; order 2)."""

import pytest
import torch

from zoo.architectures.hyena import Hyena
from zoo.contract import LayerContext

SOURCE = "HazyResearch/safari, HyenaOperator (recorded)"


@pytest.fixture
def official(parity):
    """Recorded tensors, and our mixer under their parameters; t and the window are ours."""
    recorded, leaves = parity("hyena_order2")
    mixer = Hyena(LayerContext(width=16, length=32), filter_order=16, emb_dim=5).double()
    missing, unexpected = mixer.load_state_dict({k: v for k, v in leaves.items() if k != "input"}, strict=False)
    assert not unexpected
    assert not [name for name in missing if not name.endswith((".t", ".deltas", ".freq"))]
    return recorded, mixer


def test_outputs_and_gradients(oracle, official):
    recorded, mixer = official
    x = recorded["input"].clone().requires_grad_()
    y, _ = mixer(x)
    proof = oracle("hyena", SOURCE)
    proof.outputs(y, recorded["output"])
    proof.outputs(mixer.filter_fn(32), recorded["aux.filter"])
    y.backward(recorded["cotangent"])
    got = {"input": x.grad} | {name: p.grad for name, p in mixer.named_parameters()}
    proof.gradients(got, {k.removeprefix("grad."): v for k, v in recorded.items() if k.startswith("grad.")})


@pytest.mark.parametrize("sizes", [[1] * 32, [5, 1, 26]])
def test_steps(oracle, official, sizes):
    recorded, mixer = official
    state, pieces = mixer.init_state(2, device="cpu", dtype=torch.float64), []
    with torch.no_grad():
        for piece in recorded["input"].split(sizes, dim=1):
            y, state = mixer(piece, state=state)
            pieces.append(y)
    oracle("hyena", SOURCE).outputs(torch.cat(pieces, 1), recorded["output"])


def test_time_axis_and_window(official):
    recorded, mixer = official
    for name in ("filter_fn.pos_emb.t", "filter_fn.modulation.deltas"):
        torch.testing.assert_close(mixer.state_dict()[name], recorded[f"buffer.{name}"], rtol=0, atol=1e-6)

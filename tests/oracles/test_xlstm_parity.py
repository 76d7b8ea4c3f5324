"""The mLSTM cell against the recorded official one (NX-AI/xlstm, mLSTMCell, run in float64)."""

import torch

from zoo.architectures.mlstm import MLSTMCell

D, H = 16, 2
INPUTS = ("q", "k", "v")


def load(parity):
    """The recorded tensors, the inputs, and our cell under the recorded parameters."""
    recorded, leaves = parity("xlstm_mlstm_cell")
    cell = MLSTMCell(D, H).double()
    cell.load_state_dict({name: value for name, value in leaves.items() if name not in INPUTS})
    return recorded, [leaves[name] for name in INPUTS], cell


def run(cell, q, k, v, state=None):
    """As the official cell does: gates from q, k and v side by side, then heads."""
    i, f = (gate(torch.cat([q, k, v], dim=-1)).transpose(1, 2) for gate in (cell.igate, cell.fgate))
    heads = (x.unflatten(-1, (H, -1)).transpose(1, 2) for x in (q, k, v))
    return cell(*heads, i, f, state=state)


def test_parallel(oracle, parity):
    recorded, inputs, cell = load(parity)
    y, _ = run(cell, *inputs)
    proof = oracle("mlstm", "xlstm, mLSTMCell in parallel (recorded)")
    proof.outputs(y, recorded["output"], 1e-6)
    named = dict(cell.named_parameters())
    found = torch.autograd.grad((y * recorded["cotangent"]).sum(), [*inputs, *named.values()])
    got = dict(zip([*(f"input.{name}" for name in INPUTS), *named], found, strict=True))
    wanted = {name.removeprefix("grad."): value for name, value in recorded.items() if name.startswith("grad.")}
    proof.gradients(got, wanted, 1e-5)


def test_steps_and_state(oracle, parity):
    """m starts at 0 here as there, so that nothing differs."""
    recorded, inputs, cell = load(parity)
    proof = oracle("mlstm", "xlstm, mLSTMCell step by step (recorded)")
    with torch.no_grad():
        whole, after = run(cell, *inputs)
        state, steps = None, []
        for t in range(whole.shape[1]):
            y, state = run(cell, *(x[:, t : t + 1] for x in inputs), state=state)
            steps.append(y)
    for found in (whole, torch.cat(steps, 1)):
        proof.outputs(found, recorded["output.step"], 1e-11)
    for found in (after, state):
        for name, value in zip("cnm", found, strict=True):
            proof.outputs(value, recorded[f"state.final.{name}"].reshape(value.shape), 1e-11)

"""Caches of attention after several calls, each of which was padded: every row is as if it had come alone."""

import pytest
import torch

from zoo.architectures import recipe
from zoo.contract import LayerContext, Part

from .mixers import make_mixer, shaken, start

OPTIONS = {
    "deltaformer": {},
    "moba": {"moba_chunk_size": 3, "moba_topk": 2},
    "nsa": {"block_size": 2, "block_counts": 4, "window_size": 3},
    "parallax": {},
    "path": {"use_forget_gate": True},
    "wall": {"use_scalar_gate": True, "gate_init_bias": 0.0},
}
LENGTHS = torch.tensor([[5, 7, 0, 9], [2, 1, 9, 4], [0, 9, 3, 1]])
"""Of three rows, how many of nine steps are valid in each of four calls."""
B, CALLS, D = *LENGTHS.shape, 16


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_padding_between_calls_changes_nothing(name):
    positions = recipe(name).positions
    context = LayerContext(width=D, length=64, positions=None if positions == "none" else Part(positions))
    mixer = shaken(make_mixer(name, context, **OPTIONS[name]))
    x = torch.randn(B, CALLS, 9, D, dtype=torch.float64)
    state, outputs = start(mixer, x[:, 0]), []
    for call in range(CALLS):
        mask = torch.arange(9) < LENGTHS[:, call, None]
        y, state = mixer(x[:, call], mask=mask, state=state)
        outputs.append([y[row][mask[row]] for row in range(B)])
    for row in range(B):
        alone = torch.cat([x[row, call, :n] for call, n in enumerate(LENGTHS[row].tolist())])
        got = torch.cat([parts[row] for parts in outputs])
        torch.testing.assert_close(got, mixer(alone[None])[0][0])

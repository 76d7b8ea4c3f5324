"""BigBird: the plan of random blocks."""

import pytest
import torch

from zoo.architectures.bigbird import BigBird, draw
from zoo.contract import LayerContext


@pytest.mark.parametrize("N", [12, 40])
@pytest.mark.parametrize("r", [1, 2, 3])
def test_random_blocks_are_distinct_and_elsewhere(r, N):
    plan = torch.from_numpy(draw(N, 4, r, seed=3))
    i = torch.arange(1, N - 1)[None, :, None]
    assert ((plan > 0) & (plan < 2 * r + 4) & ((plan - i).abs() > 1)).all()
    assert all(len(set(row.tolist())) == r for row in plan.flatten(0, 1))
    assert len({str(head.tolist()) for head in plan}) == 4


def test_layers_differ_and_builds_agree():
    def plan(layer):
        context = LayerContext(width=8, length=35, causal=False, layer=layer)
        return BigBird(context, heads=2, block_size=3, random_blocks=2).plan

    first = plan(0)
    torch.manual_seed(5)
    assert torch.equal(plan(0), first)
    assert not torch.equal(plan(1), first)

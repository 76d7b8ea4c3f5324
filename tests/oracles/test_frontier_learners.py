"""Operators of layers that learn as they read, against official ones that ran in float64 (recorded outside this
repository)."""

import pytest

from zoo.ops.mesa import mesa, mesa_naive


def turned(x, *names):
    """Heads and time in the other order."""
    return [x[name].transpose(1, 2) for name in names]


@pytest.mark.parametrize("form", [mesa, mesa_naive])
def test_mesa(frontier_parity, oracle, form):
    data, x = frontier_parity("fla_mesa_net_exact")
    o, state = form(*turned(x, "q", "k", "v", "beta", "g"), x["lamb"], (x["h_kk_init"], x["h_kv_init"]))
    proof = oracle("mesa_net", "flash-linear-attention, naive_mesa_net_exact (recorded)")
    proof.recorded(o.transpose(1, 2), data, x)
    for found, name in zip(state, ("h_kk", "h_kv"), strict=True):
        proof.outputs(found, data[f"state.final.{name}"], 1e-9)

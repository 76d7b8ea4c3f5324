"""Delta rules alone against official operators that ran in float64 (recorded outside this repository)."""

import torch.nn.functional as F

from zoo.ops.delta_rule import delta_rule, delta_rule_naive


def test_gated_delta_product(frontier_parity, oracle):
    """Steps of one token follow each other: the first decays, behind the last the output is read."""
    data, x = frontier_parity("fla_gated_delta_product")
    q, k, v, beta, g = (x[name].transpose(1, 2) for name in ("q", "k", "v", "beta", "g"))
    n = k.shape[2] // q.shape[2]
    q = F.pad(q.shape[-1] ** -0.5 * q[:, :, :, None], (0, 0, n - 1, 0)).flatten(2, 3)
    g = F.pad(g[..., None], (0, n - 1)).flatten(2)
    for form in (delta_rule, delta_rule_naive):
        o, S = form(q, k, v, beta, g, x["initial_state"])
        proof = oracle("gated_delta_product", "flash-linear-attention, naive_recurrent_gated_delta_product (recorded)")
        proof.recorded(o[:, :, n - 1 :: n].transpose(1, 2), data, x)
        proof.outputs(S, data["state.final"], 1e-9)

"""Fast weights against the layers of IDSIA/lmtool-fwp, rebuilt step by step in float64."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.fast_weights import FastWeights
from zoo.contract import LayerContext

from .compare import leaves, vectors


def official(x, W_slow, W_out, *, heads, d, delta, roll, norm):
    """The Cuda…FastWeight…Layer of cuda_fast_weight_layer.py without LayerNorm and residual, one step at a time.

    W is (V, K) there. `roll` is n_roll of the DPFP layers, 0 for the ELU layers; `norm` is normalize_attn_scores.
    """
    B, T, _ = x.shape
    per_head = (x @ W_slow.T).view(B, T, heads, -1)
    q, k, v = (per_head[..., i * d : (i + 1) * d] for i in range(3))

    def phi(z):
        if not roll:
            z = F.elu(z) + 1
        else:
            z = torch.cat([F.relu(z), F.relu(-z)], dim=-1)
            z = torch.cat([z * z.roll(shifts=i, dims=-1) for i in range(1, roll + 1)], dim=-1)
        return z / z.sum(-1, keepdim=True)

    q, k = phi(q), phi(k)
    W, z, outputs = x.new_zeros(B, heads, d, k.shape[-1]), 0, []
    for t in range(T):
        target = v[:, t]
        if delta:
            beta = torch.sigmoid(per_head[:, t, :, 3 * d :])
            target = beta * (target - torch.einsum("bhvk,bhk->bhv", W, k[:, t]))
        W = W + torch.einsum("bhv,bhk->bhvk", target, k[:, t])
        y = torch.einsum("bhvk,bhk->bhv", W, q[:, t]) / d**0.5
        z = z + k[:, t]
        if norm:
            y = y / ((z * q[:, t]).sum(-1, keepdim=True) + 1e-5)
        outputs.append(y.flatten(1))
    return torch.stack(outputs, dim=1) @ W_out.T


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ({}, {"delta": True, "roll": 0, "norm": False}),  # attn_type 24
        ({"attention_norm": True}, {"delta": True, "roll": 0, "norm": True}),
        ({"feature_map": "dpfp", "nu": 3}, {"delta": True, "roll": 3, "norm": False}),  # 26
        ({"rule": "sum"}, {"delta": False, "roll": 0, "norm": True}),  # 34
        ({"rule": "sum", "feature_map": "dpfp", "nu": 2}, {"delta": False, "roll": 2, "norm": True}),  # 36
    ],
    ids=str,
)
@pytest.mark.parametrize(("heads", "d_head"), [(4, None), (2, 7)])
def test_layers(oracle, options, how, heads, d_head):
    torch.manual_seed(0)
    mixer = FastWeights(LayerContext(width=24, length=33), heads=heads, d_head=d_head, **options).double()
    x, weights = vectors(2, 33, 24), (mixer.slow_net.weight, mixer.out_linear.weight)
    want = official(x, *weights, heads=heads, d=d_head or 24 // heads, **how)
    proof = oracle("fast_weights", "IDSIA/lmtool-fwp, Cuda...FastWeight...Layer (rebuilt step by step)")
    proof.equal(mixer(x)[0], want, leaves(mixer, input=x), tolerance=1e-9, gradients=1e-9)

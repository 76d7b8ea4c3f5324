"""Linear attention against the recurrence and the two sums of idiap/fast-transformers, written out in float64."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.linear_transformer import LinearAttention
from zoo.contract import LayerContext

from .compare import drawn, leaves, vectors

B, T, D = 2, 13, 12


def official(mixer, x, heads, causal, eps):
    """RecurrentLinearAttention step by step, or LinearAttention, between AttentionLayer's projections."""
    q, k, v = (
        F.linear(x, projection.weight, projection.bias).view(B, T, heads, -1)
        for projection in (mixer.query_projection, mixer.key_projection, mixer.value_projection)
    )
    q, k = F.elu(q) + 1, F.elu(k) + 1
    if causal:
        S, Z, y = torch.zeros((), dtype=x.dtype), torch.zeros((), dtype=x.dtype), []
        for t in range(T):
            S, Z = S + torch.einsum("nhd,nhm->nhdm", k[:, t], v[:, t]), Z + k[:, t]
            z = 1 / (torch.einsum("nhd,nhd->nh", q[:, t], Z) + eps)
            y.append(torch.einsum("nhd,nhdm,nh->nhm", q[:, t], S, z))
        y = torch.stack(y, 1)
    else:
        z = 1 / (torch.einsum("nlhd,nhd->nlh", q, k.sum(1)) + eps)
        y = torch.einsum("nlhd,nhmd,nlh->nlhm", q, torch.einsum("nshd,nshm->nhmd", k, v), z)
    return F.linear(y.flatten(2), mixer.out_projection.weight, mixer.out_projection.bias)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"heads": 3, "eps": 0.1}, {"heads": 5, "d_keys": 2, "d_values": 7}, {"heads": 1}], ids=str
)
def test_layer(oracle, causal, options):
    torch.manual_seed(0)
    mixer, x = drawn(LinearAttention(LayerContext(width=D, length=T, causal=causal), **options)), vectors(B, T, D)
    want = official(mixer, x, options.get("heads", 4), causal, options.get("eps", 1e-6))
    proof = oracle("linear_transformer", "the equations of idiap/fast-transformers, step by step")
    proof.equal(mixer(x)[0], want, leaves(mixer, x=x), tolerance=1e-9)

"""Comba: what its inner decay and its correction of the query are felt by."""

import torch
import torch.nn.functional as F

from zoo.architectures.comba import Comba
from zoo.contract import LayerContext

from .mixers import drawn, vectors

CONTEXT, OPTIONS = LayerContext(width=16, length=19), {"heads": 2, "use_short_conv": False}


@torch.no_grad()
def test_the_inner_decay_is_felt_by_way_of_the_correction_alone():
    for corrected in (True, False):
        mixer, x = drawn(Comba(CONTEXT, use_output_correction=corrected, **OPTIONS)), vectors(2, 19, 16)
        before = mixer(x)[0]
        mixer.decay.data -= 1
        change = float((mixer(x)[0] - before).abs().max() / before.abs().max())
        assert change > 1e-2 if corrected else change < 1e-4  # what the ε under the norm's root leaves


def test_what_is_erased_is_read_before_the_decay():
    """By hand, two steps: S = α β₁ k₁ v₁ᵀ + β₂ k₂ (v₂ − β₁ (k₁·p₂) v₁)ᵀ."""
    mixer, x = drawn(Comba(CONTEXT, use_inner_decay=False, **OPTIONS)), vectors(1, 2, 16)
    state = mixer.init_state(1, device="cpu", dtype=torch.float64)
    S = mixer(x, state=state)[1]["S"][0]
    k, v = (F.silu(project(x))[0].unflatten(-1, (2, -1)) for project in (mixer.k_proj, mixer.v_proj))
    k = F.normalize(k, dim=-1)
    beta = mixer.b_proj(x)[0].sigmoid()[..., None]
    alpha = torch.exp(-mixer.A_log.exp() * F.softplus(mixer.a_proj(x)[0, 1] + mixer.dt_bias))
    first = beta[0] * v[0]
    second = beta[1] * (v[1] - (k[0] * k[1]).sum(-1, keepdim=True) * first)
    want = alpha[:, None, None] * k[0, :, :, None] * first[:, None] + k[1, :, :, None] * second[:, None]
    torch.testing.assert_close(S, want, rtol=1e-4, atol=1e-5)

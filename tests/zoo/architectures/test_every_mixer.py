"""What tests ask of every mixer beyond the contract: no data needed, directions, types of states."""

from functools import cache

import pytest
import torch

from zoo.architectures.delta_net import DeltaNet
from zoo.checks.subject import Subject
from zoo.contract import LayerContext, Unsupported

from .mixers import mixers_of

subject = cache(Subject)
T = 7

READS_DATA_BACKWARDS = {"performer"}
"""Its backward pass asks whether a feature is as large as its type can hold."""


def test_runs_without_data(architecture):
    """On the meta device, where sizes and costs are estimated: with a mask, backwards, and step by step."""
    for role in subject(architecture).backbones:
        with torch.device("meta"):
            backbone = subject(architecture).build(role).backbone
            x, mask = torch.randn(3, T, subject(architecture).width), torch.ones(3, T, dtype=torch.bool)
        y, _ = backbone(x, mask=mask)
        if architecture not in READS_DATA_BACKWARDS:
            y.sum().backward()
        assert y.shape == x.shape
        if role == "lm" and backbone.traits.resumable:
            state = backbone.init_state(3, device="meta", dtype=torch.float32)
            for piece in x.split([1, T - 1], dim=1):
                y, state = backbone(piece, state=state)
                assert y.shape == piece.shape


def test_what_looks_back_only_has_to_be_wrapped():
    with pytest.raises(Unsupported, match=r"DeltaNet looks back only; wrap it in zoo\.blocks\.Bidirectional"):
        DeltaNet(LayerContext(width=8, length=T, causal=False))


@pytest.mark.parametrize(
    "name", ["based", "bigbird", "linear_transformer", "local", "longformer", "mega", "performer", "sinkhorn"]
)
def test_what_looks_both_ways_cannot_continue(name):
    found = [mixer for mixer in mixers_of(subject(name), subject(name).build("classify")) if mixer.traits.bidirectional]
    assert found
    for mixer in found:
        state = mixer.init_state(3, device="cpu", dtype=torch.float32)
        with pytest.raises(Unsupported):
            mixer(torch.randn(3, T, subject(name).width), state=state)


FLOAT32 = {
    "comba": "S",
    "delta_net": "S",
    "deltaformer": "u",
    "fast_weights": "S",
    "forgetting": "decay",
    "gated_delta_net": "S",
    "gated_delta_net_2": "S",
    "gated_delta_product": "S",
    "gated_slot_attention": "K V",
    "gla": "S",
    "gss": "x",
    "h3": "shift diag",
    "hgrn": "h",
    "hgrn2": "S",
    "hyena": "short z",
    "hymba": "h",
    "kda": "S",
    "lightning_attention": "S",
    "linear_transformer": "S z",
    "log_linear_gated_delta_net": "S",
    "log_linear_mamba2": "S",
    "lru": "x",
    "mamba": "h",
    "mamba2": "S",
    "mamba3": "S angle",
    "mesa_net": "G S",
    "mixture_of_memories": "S",
    "mlstm": "C n m",
    "path": "k",
    "performer": "S z",
    "precond_gated_delta_net": "S A",
    "raven": "K V",
    "rodimus": "S",
    "s4": "x",
    "s4d": "x",
    "s5": "x",
    "titans": "M S W",
    "ttt_linear": "W G",
    "wall": "k",
    "yoco": "S",
}
"""What of a state is float32 where the rest is bfloat16."""
EXACT = {"lru", "s4", "s4d", "s5"}
"""No linear layer stands before their recurrence, so that autocast changes no digit of the state."""


@pytest.mark.parametrize("name", FLOAT32)
def test_recurrences_stay_float32_under_autocast(name):
    mixer, *_ = mixers_of(subject(name), subject(name).build("lm"))
    x = subject(name).vectors(steps=T).float()
    half = mixer.init_state(3, device="cpu", dtype=torch.bfloat16)
    full = mixer.init_state(3, device="cpu", dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, after = mixer(x, state=half)
        _, rough = mixer(x, state=full)
    assert bool(y.isfinite().all())
    for state in (half, after):
        floating = {key: value.dtype for key, value in state.items() if value.is_floating_point()}
        assert {key for key, dtype in floating.items() if dtype == torch.float32} == set(FLOAT32[name].split())
    if name in EXACT:
        torch.testing.assert_close(rough, mixer(x, state=full)[1], rtol=0, atol=0)

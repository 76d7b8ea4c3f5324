"""Mamba-2 against transformers' port (Mamba2Mixer without kernels), in float64."""

import pytest
import torch

from zoo.architectures.mamba2 import Mamba2
from zoo.contract import LayerContext

transformers = pytest.importorskip("transformers")
B, T, D = 2, 19, 16


@pytest.fixture(autouse=True)
def in_float64(monkeypatch):
    """The port casts to float32, by `.float()` and, in its norm, by `.to`."""
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *a, **k: x if a == (torch.float32,) else to(x, *a, **k))


@pytest.mark.parametrize(
    "options",
    [
        {"d_state": 5, "headdim": 8},
        {"d_state": 3, "headdim": 4, "ngroups": 4, "expand": 3, "bias": True, "chunk_size": 4},
        {"d_state": 6, "headdim": 16, "ngroups": 2, "d_conv": 2, "conv_bias": False, "dt_limit": (0.2, 0.9)},
    ],
    ids=str,
)
def test_layer(oracle, options):
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    names = {"d_state": "state_size", "headdim": "head_dim", "ngroups": "n_groups", "d_conv": "conv_kernel"}
    names |= {"bias": "use_bias", "conv_bias": "use_conv_bias", "dt_limit": "time_step_limit"}
    heads = options.get("expand", 2) * D // options["headdim"]
    told = {names.get(k, k): v for k, v in {"ngroups": 1, **options}.items()}
    config = transformers.Mamba2Config(hidden_size=D, num_heads=heads, layer_norm_epsilon=1e-5, **told)
    torch.manual_seed(0)
    theirs = Mamba2Mixer(config, 0)
    for parameter in theirs.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    theirs = theirs.double()
    ours = Mamba2(LayerContext(width=D, length=T), **options).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    y, want = ours(x)[0], theirs(x)
    weights = torch.randn_like(want)
    proof = oracle("mamba2", "transformers, Mamba2Mixer")
    proof.outputs(y, want, 1e-9)
    got, wanted = (
        dict(zip(leaves, torch.autograd.grad((out * weights).sum(), list(leaves.values())), strict=True))
        for out, leaves in (
            (y, {"input": x, **dict(ours.named_parameters())}),
            (want, {"input": x, **dict(theirs.named_parameters())}),
        )
    )
    proof.gradients(got, wanted, 1e-8)

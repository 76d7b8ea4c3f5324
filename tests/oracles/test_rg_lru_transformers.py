"""Griffin's recurrent block against transformers' port (RecurrentGemmaRecurrentBlock), in float64."""

from functools import partial

import pytest
import torch

from zoo.architectures.rg_lru import RecurrentBlock
from zoo.contract import LayerContext

transformers = pytest.importorskip("transformers")
B, T, D = 2, 19, 12


@pytest.mark.parametrize(
    "options", [{"heads": 3}, {"heads": 4, "lru_width": 20, "d_conv": 2}, {"heads": 1, "d_conv": 6}], ids=str
)
def test_block(oracle, options):
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRecurrentBlock

    config = transformers.RecurrentGemmaConfig(
        hidden_size=D,
        num_attention_heads=options["heads"],
        lru_width=options.get("lru_width"),
        conv1d_width=options.get("d_conv", 4),
    )
    torch.manual_seed(0)
    ours = RecurrentBlock(LayerContext(width=D, length=T), **options).double()
    for parameter in ours.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    theirs = RecurrentGemmaRecurrentBlock(config, 0).double()
    theirs.load_state_dict(ours.state_dict())
    theirs.rg_lru._rnn_scan = partial(theirs.rg_lru._rnn_scan, acc_dtype=torch.float64)
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    positions = torch.arange(T)[None].expand(B, T)
    want, _ = theirs(x, positions, None, use_cache=False)
    y, _ = ours(x)
    weights = torch.randn_like(want)
    proof = oracle("rg_lru", "transformers, RecurrentGemmaRecurrentBlock")
    proof.outputs(y, want, 1e-9)
    got, wanted = (
        dict(zip(leaves, torch.autograd.grad((out * weights).sum(), list(leaves.values())), strict=True))
        for out, leaves in (
            (y, {"input": x, **dict(ours.named_parameters())}),
            (want, {"input": x, **dict(theirs.named_parameters())}),
        )
    )
    proof.gradients(got, wanted, 1e-8)
    with torch.no_grad():
        state, steps = ours.init_state(B, device="cpu", dtype=torch.float64), []
        for step in x.split(1, dim=1):
            piece, state = ours(step, state=state)
            steps.append(piece)
    proof.outputs(torch.cat(steps, 1), want, 1e-9)

"""Griffin's blocks against transformers' RecurrentGemmaModel, in float64, over more than its pattern of three."""

import re
from functools import partial

import pytest
import torch

import zoo
from zoo.contract import Shape

transformers = pytest.importorskip("transformers")
B, T, D, HEADS, WINDOW = 2, 23, 16, 2, 5
NAMES = {
    "temporal_pre_norm": "{0}.norm",
    "temporal_block": "{0}.inner",
    "channel_pre_norm": "{1}.norm",
    "mlp_block": "{1}.inner",
}


def renamed(name):
    """Our name of a parameter of theirs: a layer there is two sublayers here."""
    if name == "final_norm.weight":
        return "norm.weight"
    layer, part, rest = re.fullmatch(r"layers\.(\d+)\.(\w+)\.(.*)", name).groups()
    rest = rest.replace("o_proj", "out_proj").replace("gate_proj", "gate").replace("up_proj", "up")
    return f"sublayers.{NAMES[part].format(2 * int(layer), 2 * int(layer) + 1)}.{rest.replace('down_proj', 'down')}"


def test_stack(oracle, monkeypatch):
    from transformers.models.recurrent_gemma import modeling_recurrent_gemma as port

    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    config = transformers.RecurrentGemmaConfig(
        hidden_size=D,
        intermediate_size=6 * D,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        num_hidden_layers=4,
        vocab_size=7,
        attention_window_size=WINDOW,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    theirs = port.RecurrentGemmaModel(config).double().eval()
    for parameter in theirs.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    theirs.normalizer.fill_(1.0)  # the stack alone: inputs come in as they are
    for module in theirs.modules():
        if isinstance(module, port.RecurrentGemmaRglru):
            module._rnn_scan = partial(module._rnn_scan, acc_dtype=torch.float64)
    shape = Shape(length=T, vocab=7, outputs=7, width=D, depth=4)
    ours = zoo.build("griffin", "lm", shape=shape, heads=HEADS, window=WINDOW).double().eval().backbone
    parameters = {renamed(n): p for n, p in theirs.named_parameters() if not n.startswith("embed")}
    ours.load_state_dict({name: p.detach() for name, p in parameters.items()})
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    want = theirs(inputs_embeds=x, use_cache=False).last_hidden_state
    y, _ = ours(x)
    proof = oracle("griffin", "transformers, RecurrentGemmaModel")
    proof.outputs(y, want)
    weights = torch.randn_like(want)
    got, wanted = (
        dict(zip(leaves, torch.autograd.grad((out * weights).sum(), list(leaves.values())), strict=True))
        for out, leaves in (
            (y, {"input": x, **dict(ours.named_parameters())}),
            (want, {"input": x, **parameters}),
        )
    )
    proof.gradients(got, wanted)
    with torch.no_grad():
        state, steps = ours.init_state(B, device="cpu", dtype=torch.float64), []
        for step in x.split(1, dim=1):
            piece, state = ours(step, state=state)
            steps.append(piece)
    proof.outputs(torch.cat(steps, 1), want)

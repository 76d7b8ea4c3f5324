"""Griffin's recurrent block, and more of its stack than a pattern of three, against transformers' RecurrentGemma."""

import re
from functools import partial

import pytest
import torch

import zoo
from zoo.architectures.rg_lru import RecurrentBlock
from zoo.contract import LayerContext, Shape

from .compare import in_pieces, leaves, shaken, vectors

transformers = pytest.importorskip("transformers")
port = pytest.importorskip("transformers.models.recurrent_gemma.modeling_recurrent_gemma")
B = 2


def without_float32(module):
    for part in module.modules():
        if isinstance(part, port.RecurrentGemmaRglru):
            part._rnn_scan = partial(part._rnn_scan, acc_dtype=torch.float64)


@pytest.mark.parametrize(
    "options", [{"heads": 3}, {"heads": 4, "lru_width": 20, "d_conv": 2}, {"heads": 1, "d_conv": 6}], ids=str
)
def test_block(oracle, options):
    T, D = 19, 12
    config = transformers.RecurrentGemmaConfig(
        hidden_size=D,
        num_attention_heads=options["heads"],
        lru_width=options.get("lru_width"),
        conv1d_width=options.get("d_conv", 4),
    )
    torch.manual_seed(0)
    ours = shaken(RecurrentBlock(LayerContext(width=D, length=T), **options))
    theirs = port.RecurrentGemmaRecurrentBlock(config, 0).double()
    theirs.load_state_dict(ours.state_dict())
    without_float32(theirs)
    x, steps = vectors(B, T, D), torch.arange(T)[None].expand(B, T)
    proof = oracle("rg_lru", "transformers, RecurrentGemmaRecurrentBlock")
    want = proof.layers(ours, theirs, x, lambda x: theirs(x, steps, None, use_cache=False)[0], tolerance=1e-9)
    proof.outputs(in_pieces(ours, x)[0], want, 1e-9)


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
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    T, D, heads, window = 23, 16, 2, 5
    config = transformers.RecurrentGemmaConfig(
        hidden_size=D,
        intermediate_size=6 * D,
        num_attention_heads=heads,
        num_key_value_heads=1,
        num_hidden_layers=4,
        vocab_size=7,
        attention_window_size=window,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    theirs = shaken(port.RecurrentGemmaModel(config), 0.2).eval()
    theirs.normalizer.fill_(1.0)  # the stack alone: inputs come in as they are
    without_float32(theirs)
    shape = Shape(length=T, vocab=7, outputs=7, width=D, depth=4)
    ours = zoo.build("griffin", "lm", shape=shape, heads=heads, window=window).double().eval().backbone
    parameters = {renamed(n): p for n, p in theirs.named_parameters() if not n.startswith("embed")}
    ours.load_state_dict({name: p.detach() for name, p in parameters.items()})
    x = vectors(B, T, D)
    want = theirs(inputs_embeds=x, use_cache=False).last_hidden_state
    proof = oracle("griffin", "transformers, RecurrentGemmaModel")
    proof.equal(ours(x)[0], want, leaves(ours, input=x), {"input": x, **parameters})
    proof.outputs(in_pieces(ours, x)[0], want)

"""Lightning attention against transformers' MiniMax-01, in blocks and step by step."""

import pytest
import torch

from zoo.architectures.lightning_attention import LightningAttention
from zoo.contract import LayerContext

from .compare import in_pieces, shaken, vectors

pytest.importorskip("transformers.models.minimax")
B, T, D, DEPTH = 2, 37, 24, 3
pytestmark = pytest.mark.usefixtures("in_float64")


@pytest.fixture(autouse=True)
def decays_in_float64():
    """The official layer computes them once, as it is built."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("layer", "heads", "head_dim"), [(0, 4, None), (1, 3, 6), (DEPTH - 1, 4, None)])
def test_layer(oracle, layer, heads, head_dim):
    from transformers.models.minimax.configuration_minimax import MiniMaxConfig
    from transformers.models.minimax.modeling_minimax import MiniMaxCache, MiniMaxLightningAttention

    torch.manual_seed(0)
    config = MiniMaxConfig(
        hidden_size=D,
        num_attention_heads=heads,
        num_key_value_heads=1,
        head_dim=head_dim,
        num_hidden_layers=DEPTH,
        layer_types=["linear_attention"] * DEPTH,
        block_size=16,
    )
    theirs = shaken(MiniMaxLightningAttention(config, layer))
    context = LayerContext(width=D, length=T, layer=layer, depth=DEPTH)
    ours = LightningAttention(context, heads=heads, head_dim=head_dim)
    x = vectors(B, T, D)
    proof = oracle("lightning_attention", "transformers, MiniMaxLightningAttention")
    proof.layers(ours, theirs, x, lambda x: theirs(x, None, None)[0], tolerance=1e-12)

    cache = MiniMaxCache()
    with torch.no_grad():
        first, rest = x[:, :-5], x[:, -5:]
        theirs(first, None, None, cache=cache)
        want, state = theirs(rest, None, None, cache=cache)
    steps, last = in_pieces(ours, x)
    proof.outputs(steps[:, -5:], want, 1e-12)
    proof.outputs(last["S"], state, 1e-12)

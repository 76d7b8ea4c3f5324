"""GLA: official weights under another name."""

import torch

from zoo.architectures.gla import GLA
from zoo.contract import LayerContext


def test_loads_the_official_name_of_the_norm():
    context = LayerContext(width=16, length=21)
    mixer, other = GLA(context), torch.nn.Sequential(GLA(context))
    weights = {k.replace("g_norm.", "g_norm_swish_gate."): v for k, v in mixer.state_dict().items()}
    other.load_state_dict({f"0.{name}": value for name, value in weights.items()})
    torch.testing.assert_close(dict(other[0].state_dict()), dict(mixer.state_dict()))

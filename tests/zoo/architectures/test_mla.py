"""MLA with a cache: latents are read as they lie."""

import torch

from zoo.architectures.mla import MultiheadLatentAttention
from zoo.contract import LayerContext, Part

from .mixers import drawn, start, vectors


@torch.no_grad()
def test_a_step_makes_no_keys_or_values():
    mixer = drawn(MultiheadLatentAttention(LayerContext(32, 16, positions=Part("rope")), norm_eps=1e-6))
    x, made = vectors(2, 9, 32), []
    mixer.kv_proj[2].register_forward_hook(lambda *_: made.append(1))
    whole = mixer(x)[0]
    assert made == [1]
    _, state = mixer(x[:, :8], state=start(mixer, x))
    y, state = mixer(x[:, 8:], state=state)
    assert made == [1]
    torch.testing.assert_close(y, whole[:, 8:], rtol=1e-10, atol=1e-10)
    assert {name: leaf.shape for name, leaf in state.items()} == {"k": (2, 1, 9, 4), "v": (2, 1, 9, 8)}

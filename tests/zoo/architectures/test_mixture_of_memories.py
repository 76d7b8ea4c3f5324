"""Mixture of memories: each is a Gated DeltaNet over the tokens that are sent to it."""

import torch
import torch.nn.functional as F

from zoo.architectures.gated_delta_net import GatedDeltaNet
from zoo.architectures.mixture_of_memories import MixtureOfMemories, tokens_of
from zoo.contract import LayerContext

from .mixers import drawn, vectors

D, T = 16, 23
OPTIONS = {"heads": 2, "head_dim": 4, "expand_v": 1.0}


def test_each_memory_sees_its_tokens_alone():
    """The sign of a feature decides where a token goes; each memory's tokens alone, through a Gated DeltaNet."""
    context, x = LayerContext(width=D, length=T), vectors(1, T, D)
    mixer = drawn(
        MixtureOfMemories(context, num_memories=2, topk=1, shared_mem=False, use_output_gate=False, **OPTIONS)
    )
    with torch.no_grad():
        mixer.gate.weight.zero_()[:, 0] = torch.tensor([1.0, -1.0])
    y, state = mixer(x, state=mixer.init_state(1, device="cpu", dtype=torch.float64))
    weights = mixer.state_dict()
    for e, mine in enumerate((x[0, :, 0] > 0, x[0, :, 0] < 0)):
        memory = GatedDeltaNet(context, use_gate=False, **OPTIONS).double()
        memory.load_state_dict(
            {name: weights.get(name, weights.get(name.replace(".", f".{e}."))) for name in memory.state_dict()}
        )
        want, after = memory(x[:, mine], state=memory.init_state(1, device="cpu", dtype=torch.float64))
        torch.testing.assert_close(y[:, mine], want)
        for name, value in after.items():
            torch.testing.assert_close(state[name][:, e], value)


def test_tokens_keep_their_order():
    routed = F.one_hot(torch.tensor([[1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1]]), 3).bool()
    steps, valid = tokens_of(routed)
    found = [[line[ok].tolist() for line, ok in zip(*row, strict=True)] for row in zip(steps, valid, strict=True)]
    assert found == [[[1, 4], [0, 2, 3, 5], []], [[], [0, 1, 2, 3, 4, 5], []]]

"""minGRU against its recurrence in a loop."""

import torch

from zoo.architectures.min_gru import MinGRU
from zoo.contract import LayerContext

B, T, D = 2, 9, 4


def test_equals_its_recurrence():
    torch.manual_seed(0)
    mixer = MinGRU(LayerContext(width=D, length=T), expand=1.5).double()
    x = torch.randn(B, T, D, dtype=torch.float64)
    W, b = mixer.hidden_and_gate.weight, mixer.hidden_and_gate.bias
    h = start = torch.rand(B, 6, dtype=torch.float64)
    wanted = []
    for t in range(T):
        u, gate = (x[:, t] @ W.T + b).chunk(2, -1)
        u = torch.where(u >= 0, u + 0.5, u.sigmoid())
        z = gate.sigmoid()
        h = (1 - z) * h + z * u
        wanted.append(h @ mixer.out.weight.T)
    wanted = torch.stack(wanted, 1)
    y, state = mixer(x, state={"h": start})
    torch.testing.assert_close((y, state["h"]), (wanted, h))
    own = list(mixer.parameters())
    torch.testing.assert_close(torch.autograd.grad(y.sin().sum(), own), torch.autograd.grad(wanted.sin().sum(), own))

"""minGRU against minGRU-pytorch (lucidrains), which runs in log space."""

import pytest
import torch

from zoo.architectures.min_gru import MinGRU
from zoo.contract import LayerContext

from .compare import drawn, swapped, vectors

NAMES = {"hidden_and_gate.weight": "to_hidden_and_gate.weight", "out.weight": "to_out.weight"}


@pytest.mark.parametrize("expand", [1.0, 1.5])
def test_outputs_and_gradients(oracle, expand):
    theirs = pytest.importorskip("minGRU_pytorch").minGRU
    torch.manual_seed(0)
    peer = drawn(theirs(8, expansion_factor=expand, proj_out=True), 1.0)
    ours = MinGRU(LayerContext(width=8, length=13), expand=expand, bias=False)
    oracle("min_gru", "minGRU-pytorch").layers(ours, peer, vectors(2, 13, 8), renamed=swapped(NAMES))

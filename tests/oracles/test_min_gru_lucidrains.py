"""minGRU against minGRU-pytorch (lucidrains), which runs in log space."""

import pytest
import torch

from zoo.architectures.min_gru import MinGRU
from zoo.contract import LayerContext


@pytest.mark.parametrize("expand", [1.0, 1.5])
def test_outputs_and_gradients(oracle, expand):
    theirs = pytest.importorskip("minGRU_pytorch").minGRU
    torch.manual_seed(0)
    reference = theirs(8, expansion_factor=expand, proj_out=True).double()
    ours = MinGRU(LayerContext(width=8, length=13), expand=expand, bias=False).double()
    with torch.no_grad():
        for p in reference.parameters():
            p.copy_(torch.randn_like(p))
        ours.hidden_and_gate.weight.copy_(reference.to_hidden_and_gate.weight)
        ours.out.weight.copy_(reference.to_out.weight)
    x = torch.randn(2, 13, 8, dtype=torch.float64)
    mine, yours = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, wanted = ours(mine)[0], reference(yours)
    proof = oracle("min_gru", "minGRU-pytorch")
    proof.outputs(y, wanted)
    cotangent = torch.randn_like(y)
    (y * cotangent).sum().backward()
    (wanted * cotangent).sum().backward()
    gates, out = ours.hidden_and_gate.weight.grad, ours.out.weight.grad
    proof.gradients(
        {"x": mine.grad, "hidden_and_gate": gates, "out": out},
        {
            "x": yours.grad,
            "hidden_and_gate": reference.to_hidden_and_gate.weight.grad,
            "out": reference.to_out.weight.grad,
        },
    )

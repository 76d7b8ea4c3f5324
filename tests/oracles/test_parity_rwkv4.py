"""WKV against the official kernel (BlinkDL/RWKV-LM, RWKV-v4/cuda/wkv_cuda.cu, run in float64)."""

import pytest
import torch

from zoo.ops.wkv4 import wkv, wkv_naive


@pytest.mark.parametrize("op", [wkv, wkv_naive], ids=["scan", "naive"])
def test_outputs_state_and_gradients(op, parity, oracle):
    data, leaves = parity("rwkv4_wkv")
    proof = oracle("rwkv4", "BlinkDL/RWKV-LM, wkv_cuda.cu (recorded)")
    y, state = op(-torch.exp(leaves["time_decay"]), leaves["time_first"], leaves["k"], leaves["v"])
    proof.outputs(y, data["output"], 1e-9)
    proof.outputs(state["p"] * state["o"].exp(), data["state.final.a"], 1e-9)
    proof.outputs(state["q"] * state["o"].exp(), data["state.final.b"], 1e-9)
    got = dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), data["cotangent"]), strict=True))
    want = {name: data.get(f"grad.{name}", data.get(f"grad.input.{name}")) for name in leaves}
    proof.gradients(got, want, 1e-9)

"""WKV against the official kernel (BlinkDL/RWKV-LM, RWKV-v4/cuda/wkv_cuda.cu, run in float64)."""

from pathlib import Path

import pytest
import torch

from zoo.ops.wkv4 import wkv, wkv_naive

FILE = Path(__file__).parents[2].parent / "shared/data/parity/rwkv4_wkv.safetensors"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason=f"official numbers not found: {FILE}")


def close(got, expected):
    """Equal to 1e-9 of the largest entry."""
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9 * expected.abs().max().item())


@pytest.mark.parametrize("op", [wkv, wkv_naive], ids=["scan", "naive"])
def test_outputs_state_and_gradients(op):
    from safetensors.torch import load_file

    data = load_file(FILE)
    names = ("time_decay", "time_first", "input.k", "input.v")
    stored = [data[name if name.startswith("input") else f"param.{name}"].requires_grad_() for name in names]
    time_decay, *others = stored
    y, state = op(-torch.exp(time_decay), *others)
    close(y, data["output"])
    close(state["p"] * state["o"].exp(), data["state.final.a"])
    close(state["q"] * state["o"].exp(), data["state.final.b"])
    for name, gradient in zip(names, torch.autograd.grad(y, stored, data["cotangent"]), strict=True):
        close(gradient, data[f"grad.{name}"])

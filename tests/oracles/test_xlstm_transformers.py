"""The mLSTM cell against the two native forms in transformers (models/xlstm, that of xLSTM-7B), in float64."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from zoo.ops.mlstm import mlstm

B, H, K, V = 2, 3, 4, 6


@pytest.fixture(scope="module")
def native():
    """The module as it is where the package xlstm is not installed: only then has it these functions."""
    transformers = pytest.importorskip("transformers", minversion="5.0")
    name = "transformers.models.xlstm.modeling_xlstm"
    path = Path(transformers.__file__).parent / "models/xlstm/modeling_xlstm.py"
    spec = importlib.util.spec_from_file_location(f"{name}_native", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.utils.is_xlstm_available", lambda: False)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("form", ["recurrent", "chunkwise"])
@pytest.mark.parametrize("resumed", [False, True])
def test_cell(oracle, native, form, resumed):
    torch.manual_seed(0)
    T = 24
    shapes = {"query": (B, H, T, K), "key": (B, H, T, K), "value": (B, H, T, V), "igate": (B, H, T), "fgate": (B, H, T)}
    args = {name: torch.randn(shape, dtype=torch.float64).requires_grad_() for name, shape in shapes.items()}
    state, start = None, {}
    if resumed:
        _, state = mlstm(*(2 * x.detach() for x in args.values()))
        # There q is scaled by 1/√K, here k: the memory is √K times ours.
        start = {"c_initial": K**0.5 * state[0], "n_initial": K**0.5 * state[1], "m_initial": state[2][..., None]}
    if form == "recurrent":
        wanted, after = native.mlstm_recurrent_sequence_native(
            **args, **start, return_last_states=True, dtype_state=torch.float64
        )
    else:
        wanted, after = native.mlstm_chunkwise_native_autograd(**args, **start, return_last_states=True, chunk_size=8)
    h, found = mlstm(*args.values(), state)
    proof = oracle("mlstm", f"transformers, native cell of xLSTM-7B, {form}")
    proof.outputs(h, wanted, 1e-5)
    for mine, theirs, factor in zip(found, after, (K**0.5, K**0.5, 1.0), strict=True):
        proof.outputs(factor * mine, theirs.reshape(mine.shape), 1e-5)
    weight = torch.randn_like(h)
    got, expected = (torch.autograd.grad((y * weight).sum(), list(args.values())) for y in (h, wanted))
    proof.gradients(dict(zip(args, got, strict=True)), dict(zip(args, expected, strict=True)), 1e-4)

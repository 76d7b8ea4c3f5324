"""mLSTM and sLSTM against the official layers (package xlstm) and cell (recorded), and the cell of transformers."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from zoo.architectures.mlstm import MLSTM, MLSTMCell
from zoo.architectures.slstm import SLSTM
from zoo.contract import LayerContext
from zoo.ops.mlstm import mlstm

from .compare import in_pieces, leaves, vectors

B, T = 2, 19
OPTIONS = [
    (MLSTM, 16, {"round_proj_up_to_multiple_of": 64}),
    (MLSTM, 12, {"heads": 3, "round_proj_up_to_multiple_of": 12, "bias": True}),
    (MLSTM, 10, {"heads": 5, "qkv_proj_blocksize": 2, "proj_factor": 3.0, "round_proj_up_to_multiple_of": 10}),
    (MLSTM, 8, {"heads": 1, "qkv_proj_blocksize": 16, "conv1d_kernel_size": 2, "round_proj_up_to_multiple_of": 16}),
    (SLSTM, 16, {}),
    (SLSTM, 15, {"heads": 3, "conv1d_kernel_size": 2}),
    (SLSTM, 10, {"heads": 5, "conv1d_kernel_size": 0, "group_norm_weight": False}),
    (SLSTM, 6, {"heads": 1, "bias_init": "small_init", "recurrent_weight_init": "standard"}),
]


def official_layer(ours, width, options, block=0, blocks=1):
    options = {{"heads": "num_heads"}.get(name, name): value for name, value in options.items()}
    if ours is MLSTM:
        there = pytest.importorskip("xlstm.blocks.mlstm.layer")
        config = there.mLSTMLayerConfig(embedding_dim=width, context_length=T, _num_blocks=blocks, **options)
        return there.mLSTMLayer(config)
    there = pytest.importorskip("xlstm.blocks.slstm.layer")
    config = there.sLSTMLayerConfig(embedding_dim=width, backend="vanilla", **options)
    config._block_idx, config._num_blocks = block, blocks
    return there.sLSTMLayer(config)


def pair(ours, width, options):
    """Our layer and the official one, with the same random weights under the same names, and inputs."""
    torch.manual_seed(0)
    official = official_layer(ours, width, options).double()
    for name, parameter in official.named_parameters():
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if "bias" not in name else 0.5)
    mixer = ours(LayerContext(width=width, length=T), **options).double()
    mixer.load_state_dict(official.state_dict())
    return mixer, official, vectors(B, T, width)


@pytest.mark.parametrize(("ours", "width", "options"), OPTIONS)
def test_layer(oracle, ours, width, options):
    """What differs in mLSTM is the start of m and the gradient through it, both under ε (see the deviations)."""
    name, source, tolerance = {MLSTM: ("mlstm", "mLSTMLayer", 1e-5), SLSTM: ("slstm", "sLSTMLayer (vanilla)", 1e-10)}[
        ours
    ]
    oracle(name, f"xlstm, {source}").layers(*pair(ours, width, options), tolerance=tolerance)


@pytest.mark.parametrize(("ours", "width", "options"), OPTIONS)
@torch.no_grad()
def test_states(oracle, ours, width, options):
    """After the official steps: in one call, and sLSTM step by step too."""
    mixer, official, x = pair(ours, width, options)
    there, steps = {}, []
    for x_t in x.split(1, dim=1):
        y, there = official.step(x_t, **there)
        steps.append(y)
    name, source, names, pieces = {
        MLSTM: ("mlstm", "mLSTMLayer step by step", "Cnm", [T]),
        SLSTM: ("slstm", "sLSTMLayer step by step (vanilla)", "hcnm", [T, 1]),
    }[ours]
    proof = oracle(name, f"xlstm, {source}")
    for sizes in pieces:
        y, state = in_pieces(mixer, x, sizes)
        proof.outputs(y, torch.cat(steps, 1), 1e-10)
        for part, value in zip(names, there[f"{name}_state"], strict=True):
            proof.outputs(state[part], value.reshape(state[part].shape), 1e-10)
        if ours is MLSTM:
            past = state["conv"].shape[-1]
            proof.outputs(state["conv"], there["conv_state"][0][:, -past:].transpose(1, 2), 1e-12)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize(("ours", "width"), [(MLSTM, 32), (SLSTM, 48)])
def test_new_weights(ours, width, layer):
    """Each parameter has the official one's mean and spread; where those are constants, they are equal."""
    torch.manual_seed(0)
    official = official_layer(ours, width, {}, layer, 3)
    official.reset_parameters()
    mixer = ours(LayerContext(width=width, length=T))
    for parameter in mixer.parameters():
        parameter.data.fill_(torch.nan)
    mixer.reset_parameters(layer=layer, depth=3)
    assert all(bool(parameter.isfinite().all()) for parameter in mixer.parameters())
    wanted = dict(official.named_parameters())
    assert dict(mixer.named_parameters()).keys() == wanted.keys()
    constant = {"mlstm_cell.fgate.bias", "learnable_skip", "slstm_cell._bias_"}
    for name, value in mixer.named_parameters():
        there = wanted[name]
        assert value.shape == there.shape
        if name in constant or not there.any():
            torch.testing.assert_close(value, there, msg=name)
        elif value.numel() > 100:
            assert value.std().item() == pytest.approx(there.std().item(), rel=0.2), name


CELL = ("q", "k", "v")


def test_recorded_cell(oracle, parity):
    """NX-AI/xlstm, mLSTMCell: in parallel; and step by step, where m starts at 0 here as there: nothing differs."""
    data, official = parity("xlstm_mlstm_cell")
    inputs = {name: official.pop(name) for name in CELL}
    D, heads = 16, 2
    cell = MLSTMCell(D, heads).double()
    cell.load_state_dict(official)

    def run(*qkv, state=None):
        i, f = (gate(torch.cat(qkv, dim=-1)).transpose(1, 2) for gate in (cell.igate, cell.fgate))
        return cell(*(x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in qkv), i, f, state=state)

    y, after = run(*inputs.values())
    oracle("mlstm", "xlstm, mLSTMCell in parallel (recorded)").recorded(y, data, leaves(cell, **inputs), 1e-6, 1e-5)
    state, steps = None, []
    for qkv in zip(*(x.split(1, dim=1) for x in inputs.values()), strict=True):
        step, state = run(*qkv, state=state)
        steps.append(step)
    proof = oracle("mlstm", "xlstm, mLSTMCell step by step (recorded)")
    for found, final in ((y, after), (torch.cat(steps, 1), state)):
        proof.outputs(found, data["output.step"], 1e-11)
        for name, value in zip("cnm", final, strict=True):
            proof.outputs(value, data[f"state.final.{name}"].reshape(value.shape), 1e-11)


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
    """The two forms of models/xlstm, that of xLSTM-7B."""
    torch.manual_seed(0)
    H, K, V, steps = 3, 4, 6, 24
    widths = {"query": (K,), "key": (K,), "value": (V,), "igate": (), "fgate": ()}
    args = {name: vectors(B, H, steps, *width) for name, width in widths.items()}
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
    proof.equal(h, wanted, args)
    for mine, theirs, factor in zip(found, after, (K**0.5, K**0.5, 1.0), strict=True):
        proof.outputs(factor * mine, theirs.reshape(mine.shape), 1e-5)

"""mLSTM and sLSTM against the official layers (package xlstm, in float64): outputs, gradients, steps, new weights."""

import pytest
import torch

from zoo.architectures.mlstm import MLSTM
from zoo.architectures.slstm import SLSTM
from zoo.contract import LayerContext

pytest.importorskip("xlstm")
from xlstm.blocks.mlstm.layer import mLSTMLayer, mLSTMLayerConfig
from xlstm.blocks.slstm.layer import sLSTMLayer, sLSTMLayerConfig

B, T = 2, 19
MLSTM_OPTIONS = pytest.mark.parametrize(
    ("width", "options"),
    [
        (16, {"round_proj_up_to_multiple_of": 64}),
        (12, {"heads": 3, "round_proj_up_to_multiple_of": 12, "bias": True}),
        (10, {"heads": 5, "qkv_proj_blocksize": 2, "proj_factor": 3.0, "round_proj_up_to_multiple_of": 10}),
        (8, {"heads": 1, "qkv_proj_blocksize": 16, "conv1d_kernel_size": 2, "round_proj_up_to_multiple_of": 16}),
    ],
    ids=str,
)
SLSTM_OPTIONS = pytest.mark.parametrize(
    ("width", "options"),
    [
        (16, {}),
        (15, {"heads": 3, "conv1d_kernel_size": 2}),
        (10, {"heads": 5, "conv1d_kernel_size": 0, "group_norm_weight": False}),
        (6, {"heads": 1, "bias_init": "small_init", "recurrent_weight_init": "standard"}),
    ],
    ids=str,
)


def official_layer(ours, width, options, block=0, blocks=1):
    options = {{"heads": "num_heads"}.get(name, name): value for name, value in options.items()}
    if ours is MLSTM:
        return mLSTMLayer(mLSTMLayerConfig(embedding_dim=width, context_length=T, _num_blocks=blocks, **options))
    config = sLSTMLayerConfig(embedding_dim=width, backend="vanilla", **options)
    config._block_idx, config._num_blocks = block, blocks
    return sLSTMLayer(config)


def pair(ours, width, options):
    """The official layer with random weights, ours with the same under the same names, and inputs."""
    torch.manual_seed(0)
    official = official_layer(ours, width, options).double()
    for name, parameter in official.named_parameters():
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if "bias" not in name else 0.5)
    mixer = ours(LayerContext(width=width, length=T), **options).double()
    mixer.load_state_dict(official.state_dict())
    return official, mixer, torch.randn(B, T, width, dtype=torch.float64)


def compare(proof, official, mixer, x, outputs, gradients):
    x.requires_grad_()
    wanted, got = official(x), mixer(x)[0]
    proof.outputs(got, wanted, outputs)
    weight = torch.randn_like(wanted)

    def grads(layer, y):
        named = dict(layer.named_parameters())
        found = torch.autograd.grad((y * weight).sum(), [x, *named.values()])
        return dict(zip(["input", *named], found, strict=True))

    proof.gradients(grads(mixer, got), grads(official, wanted), gradients)


@MLSTM_OPTIONS
def test_mlstm(oracle, width, options):
    """What differs is the start of m and the gradient through it, both under ε (see the deviations)."""
    compare(oracle("mlstm", "xlstm, mLSTMLayer"), *pair(MLSTM, width, options), 1e-5, 1e-4)


@MLSTM_OPTIONS
@torch.no_grad()
def test_mlstm_steps(oracle, width, options):
    official, mixer, x = pair(MLSTM, width, options)
    there, wanted = {}, []
    for x_t in x.split(1, dim=1):
        y, there = official.step(x_t, **there)
        wanted.append(y)
    proof = oracle("mlstm", "xlstm, mLSTMLayer step by step")
    y, state = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.float64))
    proof.outputs(y, torch.cat(wanted, 1), 1e-10)
    for name, value in zip("Cnm", there["mlstm_state"], strict=True):
        proof.outputs(state[name], value.reshape(state[name].shape), 1e-10)
    past = state["conv"].shape[-1]
    proof.outputs(state["conv"], there["conv_state"][0][:, -past:].transpose(1, 2), 1e-12)


@SLSTM_OPTIONS
def test_slstm(oracle, width, options):
    compare(oracle("slstm", "xlstm, sLSTMLayer (vanilla)"), *pair(SLSTM, width, options), 1e-10, 1e-9)


@SLSTM_OPTIONS
@torch.no_grad()
def test_slstm_state(oracle, width, options):
    """In one call and step by step."""
    official, mixer, x = pair(SLSTM, width, options)
    there, wanted = {}, []
    for x_t in x.split(1, dim=1):
        y, there = official.step(x_t, **there)
        wanted.append(y)
    proof = oracle("slstm", "xlstm, sLSTMLayer step by step (vanilla)")
    state = mixer.init_state(B, device="cpu", dtype=torch.float64)
    y, whole = mixer(x, state=state)
    proof.outputs(y, torch.cat(wanted, 1), 1e-10)
    for x_t in x.split(1, dim=1):
        _, state = mixer(x_t, state=state)
    for found in (whole, state):
        for name, value in zip("hcnm", there["slstm_state"], strict=True):
            proof.outputs(found[name], value, 1e-10)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize(("ours", "width"), [(MLSTM, 32), (SLSTM, 48)])
def test_new_weights(ours, width, layer):
    """Each parameter has the official one's mean and spread; where those are constants, they are equal."""
    torch.manual_seed(0)
    official = official_layer(ours, width, {}, layer, 3)
    official.reset_parameters()
    mixer = ours(LayerContext(width=width, length=T))
    mixer.reset_parameters(layer=layer, depth=3)
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

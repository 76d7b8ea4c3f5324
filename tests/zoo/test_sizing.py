"""Sizes against counts by hand: parameters, training FLOPs, state bytes; and the width nearest a target."""

import dataclasses
import math
from contextlib import suppress
from functools import cache, partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import zoo
from zoo import architectures
from zoo import size as sizing
from zoo.contract import Batch, Shape, Unsupported
from zoo.layers.rnn import runs_in_bfloat16
from zoo.layers.short_convolution import ShortConvolution
from zoo.ops import forms
from zoo.ops.long_convolution.fft import fast_length

B, T, V, C, D = 3, 8, 11, 5, 16
SHAPE = Shape(length=T, vocab=V, outputs=V, target_length=T, width=D, depth=1)


def loss(logits, batch):
    return nn.functional.cross_entropy(logits.flatten(0, -2), batch.targets.flatten())


def lm_batch():
    return Batch(inputs=torch.randint(V, (B, T)), targets=torch.randint(V, (B, T)))


@pytest.mark.parametrize("autocast", [False, True])
def test_what_a_machine_can_do_is_tried_uncounted(autocast):
    """Whether torch's recurrent layers run in bfloat16 is found out in the first pass of a process."""
    model, batch = zoo.build("lstm", shape=SHAPE), lm_batch()
    precision = partial(torch.autocast, "cpu", torch.bfloat16, enabled=autocast)
    runs_in_bfloat16.cache_clear()
    first, again = (sizing.training_flops(model, batch, loss, autocast=precision()) for _ in range(2))
    assert first == again > 0


def test_parameters_of_a_one_layer_transformer():
    model = zoo.build("pre_ln", shape=SHAPE)
    norms = 3 * 2 * D
    backbone = (3 * D * D + 3 * D) + (D * D + D) + (4 * D * D + 4 * D) + (4 * D * D + D) + norms
    assert sizing.parameters(model, "non_embedding") == backbone
    assert sizing.parameters(model) == backbone + V * D + T * D + V * D
    model.head.weight.requires_grad_(False)
    assert sizing.parameters(model) == backbone + V * D + T * D


def test_flops_of_a_one_layer_transformer():
    linear = 2 * B * T * D * (3 * D + D + 4 * D + 4 * D + V)
    forward, backward = 4 * B * T * T * D, 10 * B * T * T * D  # two products, and five with the scores made again
    model = zoo.build("pre_ln", shape=SHAPE)
    assert sizing.training_flops(model, lm_batch(), loss) == 3 * linear + forward + backward


def test_flops_of_an_lstm_layer():
    model = zoo.build("lstm", shape=SHAPE)
    forward = 2 * B * T * (D * 4 * D + D * 4 * D) + 2 * B * T * D * V
    assert sizing.training_flops(model, lm_batch(), loss) == 3 * forward


@pytest.mark.parametrize(("cell", "mode"), [(torch.nn.LSTM, 2), (torch.nn.GRU, 3)])
def test_flops_of_recurrent_layers_are_those_of_the_cpu_on_cuda(cell, mode):
    layer, x = cell(8, 12, batch_first=True), torch.randn(3, 5, 8)
    with FlopCounterMode(display=False, custom_mapping=sizing._FORMULAS) as here:
        layer(x)
    layer, x, h = layer.to("meta"), x.to("meta"), torch.zeros(1, 3, 12, device="meta")
    weights, c = list(layer.parameters()), h if cell is torch.nn.LSTM else None
    with FlopCounterMode(display=False, custom_mapping=sizing._FORMULAS) as there:
        torch.ops.aten._cudnn_rnn(x, weights, 4, None, h, c, mode, 12, 0, 1, True, 0.0, True, False, [], None)
    assert there.get_total_flops() == here.get_total_flops() == 2 * 3 * 5 * (8 + 12) * 12 * (4 if c is not None else 3)
    shapes = [list(w.shape) for w in weights]
    backward = sizing._FORMULAS[torch.ops.aten._cudnn_rnn_backward]
    assert backward([3, 5, 8], shapes) == backward([15, 8], shapes) == 2 * here.get_total_flops(), "packed, too"


def test_flops_of_an_s4d_layer():
    """The kernel as a product of √T × N by N × √T for every channel, 2B + 1 transforms a pass, a GLU and the head."""
    N, root, n = 64, 3, fast_length(2 * T - 1)
    model = zoo.build("s4d", shape=SHAPE, d_state=N, channel=None)
    dense = 2 * B * T * D * 2 * D + 2 * B * T * D * V + D * 2 * root * N * root
    transforms = 2 * (2 * B + 1) * D * round(2.5 * n * math.log2(n))
    assert sizing.training_flops(model, lm_batch(), loss) == 3 * dense + transforms


def test_flops_of_an_mlp_mixer_layer():
    model = zoo.build("mlp_mixer", "classify", shape=dataclasses.replace(SHAPE, outputs=C))
    batch = Batch(inputs=torch.randint(V, (B, T)), targets=torch.randint(C, (B,)))
    along_time, along_features = 2 * B * D * T * (D // 2) * 2, 2 * B * T * D * 4 * D * 2
    assert sizing.training_flops(model, batch, loss) == 3 * (along_time + along_features + 2 * B * D * C)


@pytest.mark.parametrize("form", ["loops", "torch"])
def test_flops_of_a_depthwise_convolution(form, monkeypatch):
    """Each of three passes multiplies every input by its W weights once."""
    if form == "torch":
        monkeypatch.setattr(forms, "available", lambda: False)
    model, forward = ShortConvolution(D, 4), ShortConvolution.forward
    batch = Batch(inputs=torch.randn(B, T, D, requires_grad=True))
    monkeypatch.setattr(ShortConvolution, "forward", lambda self, batch: forward(self, batch.inputs)[0])
    assert sizing.training_flops(model, batch, lambda y, _: y.sum()) == 3 * 2 * B * T * D * 4


@pytest.mark.parametrize(
    "name", ["reformer", "pre_ln", "gla", "delta_net", "mamba2", "mlstm", "slstm", "s4", "longformer"]
)
def test_flops_are_counted_under_autocast(name):
    """As a run does, the backward pass included. Half precision is not to change the count much."""
    model = zoo.build(name, shape=dataclasses.replace(SHAPE, width=32))
    full = sizing.training_flops(model, lm_batch(), loss)
    with torch.autocast("cpu", torch.bfloat16):
        half = sizing.training_flops(model, lm_batch(), loss)
    assert half == pytest.approx(full, rel=0.15)


def test_counting_flops_leaves_no_trace():
    model, batch = zoo.build("pre_ln", shape=SHAPE, dropout=0.5), lm_batch()
    loss(model(batch), batch).backward()
    model.head.weight.grad = None
    before = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    generator = torch.get_rng_state()
    first = sizing.training_flops(model, batch, loss)
    assert torch.equal(torch.get_rng_state(), generator)
    for name, p in model.named_parameters():
        assert (p.grad is None) if before[name] is None else torch.equal(p.grad, before[name])
    assert sizing.training_flops(model, batch, loss) == first


def test_no_state_no_bytes():
    assert sizing.recurrent_state_bytes(sizing.sketch("lstm", "classify", SHAPE), 4) is None


def test_measure_agrees_with_the_built_model():
    size, model = sizing.measure("rwkv4", "lm", SHAPE), zoo.build("rwkv4", shape=SHAPE)
    assert (size.width, size.depth) == (D, 1)
    assert size.params == sizing.parameters(model)
    assert size.params_non_embedding == sizing.parameters(model, "non_embedding")
    assert size.state_bytes == sizing.recurrent_state_bytes(model, T)


def test_a_sketch_takes_no_memory_and_no_randomness():
    generator = torch.get_rng_state()
    model = sizing.sketch("pre_ln", "lm", dataclasses.replace(SHAPE, width=2**14))
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert torch.equal(torch.get_rng_state(), generator)


def test_solved_width_is_the_nearest(architecture):
    multiple = zoo.recipe(architecture).width_multiple
    role = "lm" if "lm" in sizing.sketch_roles(architecture) else "classify"
    made = cache(lambda width: sizing.sketch(architecture, role, dataclasses.replace(SHAPE, width=width)))
    for count in ("total", "non_embedding"):
        of, counts = partial(sizing.parameters, count=count), {}
        for k in range(1, 9):
            with suppress(ValueError):  # too narrow for its options
                counts[k * multiple] = of(made(k * multiple))
        middle = sorted(counts)[len(counts) // 2]
        for params in (min(counts.values()) - 1, counts[middle] + 40):
            size = sizing.solve_width(
                architecture, role, SHAPE, target=params, of=of, build=lambda name, role, shape: made(shape.width)
            )
            nearest = min(abs(found - params) for found in counts.values())
            assert abs(counts[size.width] - params) == nearest
            assert size.target == params
            assert size.mismatch == pytest.approx((counts[size.width] - params) / params)


def test_solving_fails_where_it_must():
    with pytest.raises(ValueError, match="the narrowest model has"):
        sizing.solve_width("pre_ln", "lm", SHAPE, target=10, of=sizing.parameters)
    with pytest.raises(Unsupported):
        sizing.solve_width("mlp_mixer", "lm", SHAPE, target=10_000, of=sizing.parameters)
    with pytest.raises(ValueError, match="k must lie in"):
        sizing.solve_width("linformer", "classify", SHAPE, target=10_000, of=sizing.parameters, k=64)


def flops_per_token(model):
    batch = lm_batch()
    return sizing.training_flops(model, batch, loss) / batch.inputs.numel()


@pytest.mark.parametrize("name", ["pre_ln", "mamba"])
def test_a_width_can_be_solved_for_flops_or_state(name):
    """The solved model is nearer the target than its neighbours, on the meter asked for."""
    goals = {flops_per_token: (40_000, zoo.build), lambda model: sizing.recurrent_state_bytes(model, T): (4_000, None)}
    for of, (target, build) in goals.items():
        make = sizing.sketch if build is None else lambda name, role, shape: zoo.build(name, role, shape=shape)
        size = sizing.solve_width(name, "lm", SHAPE, target=target, of=of, build=make)
        step = architectures.recipe(name).width_multiple
        near = [of(zoo.build(name, shape=dataclasses.replace(SHAPE, width=size.width + k * step))) for k in (-1, 0, 1)]
        assert size.mismatch == pytest.approx(near[1] / target - 1)
        assert abs(near[1] - target) == min(abs(value - target) for value in near)


def test_depth_is_varied_where_no_width_comes_near():
    """Eight heads make widths coarse: at depth 2 the nearest is far off, at another depth it is not."""
    shape, of = dataclasses.replace(SHAPE, depth=2), partial(sizing.parameters, count="non_embedding")
    coarse = sizing.solve_width("pre_ln", "lm", shape, target=70_000, of=of, heads=16)
    assert coarse.depth == 2
    assert abs(coarse.mismatch) > 0.12
    solved = sizing.solve_size("pre_ln", "lm", shape, target=70_000, tolerance=0.12, of=of, heads=16)
    assert solved.depth != 2
    assert abs(solved.mismatch) <= 0.12
    built = zoo.build("pre_ln", shape=dataclasses.replace(SHAPE, width=solved.width, depth=solved.depth), heads=16)
    assert of(built) == pytest.approx(70_000 * (1 + solved.mismatch))
    assert sizing.solve_size("pre_ln", "lm", shape, target=70_000, tolerance=0.5, of=of, heads=16) == coarse

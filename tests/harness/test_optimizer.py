"""What decays, at which rate each parameter moves, and that none is left out."""

import pytest
import torch
from torch import nn

import zoo
from harness.optimizer import adamw, parameter_groups, set_lr
from zoo.contract import Hint
from zoo.terms import Shape

SHAPE = Shape(length=64, vocab=11, outputs=11, target_length=8, width=16, depth=2)
LR, DECAY = 0.01, 0.1


def build(name):
    for role in ("lm", "classify"):
        try:
            return zoo.build(name, role, shape=SHAPE)
        except zoo.Unsupported:
            continue
    pytest.fail(f"{name} plays neither role")


def groups(model):
    """(peak rate, decay) by parameter name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = parameter_groups(model, lr=LR, weight_decay=DECAY)
    return {names[id(p)]: (group["peak"], group["weight_decay"]) for group in found for p in group["params"]}


@pytest.mark.parametrize("name", zoo.names())
def test_every_parameter_stands_in_exactly_one_group(name):
    model = build(name)
    found = parameter_groups(model, lr=LR, weight_decay=DECAY)
    listed = [id(parameter) for group in found for parameter in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert len({(group["peak"], group["weight_decay"]) for group in found}) == len(found)


@pytest.mark.parametrize("name", zoo.names())
def test_only_matrices_decay(name):
    model = build(name)
    found, hints = groups(model), model.hints()
    modules = dict(model.named_modules())
    for parameter, (_, decay) in found.items():
        owner, _, leaf = parameter.rpartition(".")
        if hints.get(parameter, Hint()).decay is not None:
            assert decay == (DECAY if hints[parameter].decay else 0.0)
        elif isinstance(modules[owner], (nn.LayerNorm, nn.Embedding)) or "bias" in leaf:
            assert decay == 0.0, parameter
        elif isinstance(modules[owner], nn.Linear) and leaf == "weight":
            assert decay == DECAY, parameter


@pytest.mark.parametrize("name", ["s4d", "rwkv4"])
def test_decays_and_state_matrices_of_recurrences_never_decay(name):
    found = groups(build(name))
    raw = [
        key
        for key in found
        if any(word in key.lower() for word in ("log_a", "a_", ".c", "log_dt", "decay", "bonus", "time"))
    ]
    mixer = [key for key in raw if not key.endswith(".weight")]
    assert mixer, sorted(found)
    assert all(found[key][1] == 0.0 for key in mixer)


def test_a_hint_scales_caps_and_forces():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.fast, self.slow, self.raw = (nn.Parameter(torch.zeros(2)) for _ in range(3))

        def hints(self):
            return {"fast": Hint(lr_scale=3.0), "slow": Hint(lr_max=0.001), "raw": Hint(decay=True, lr_scale=0.5)}

    assert groups(Odd()) == {
        "linear.weight": (LR, DECAY),
        "linear.bias": (LR, 0.0),
        "fast": (3 * LR, 0.0),
        "slow": (0.001, 0.0),
        "raw": (LR / 2, DECAY),
    }


def test_a_frozen_parameter_is_left_out():
    model = build("pre_ln")
    model.head.weight.requires_grad_(False)
    assert "head.weight" not in groups(model)


def test_a_tied_table_is_in_one_group():
    model = zoo.build("pre_ln", "lm", shape=SHAPE, tie=True)
    found = parameter_groups(model, lr=LR, weight_decay=DECAY)
    assert sum(p is model.head.weight for group in found for p in group["params"]) == 1


def test_setting_the_rate_keeps_the_ratios():
    optimizer = adamw(build("s4d"), lr=LR, betas=(0.9, 0.95), weight_decay=DECAY)
    peaks = [group["peak"] for group in optimizer.param_groups]
    assert len(set(peaks)) > 1, "S4D trains A and Δ more slowly"
    set_lr(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25 * peak for peak in peaks]

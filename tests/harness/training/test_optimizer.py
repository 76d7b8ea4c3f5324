"""What decays, at which rate each parameter moves, and that none is left out."""

import contextlib
import copy
import dataclasses
import re

import pytest
import torch
from torch import nn

import zoo
from harness.training.optimizer import adamw, descend, parameter_groups, set_lr
from zoo import size as sizing
from zoo.contract import ROLES, ParamOverride
from zoo.layers.norms import UnitRMSNorm
from zoo.layers.positions.at_input import Absolute
from zoo.layers.positions.in_attention import Relative
from zoo.types import Shape

SHAPE = Shape(length=64, vocab=11, outputs=11, target_length=8, width=16, depth=2)
LR, DECAY = 0.01, 0.1


MEANING = re.compile(
    "A_log|log_A|log_A_real|A_real|A_imag|P|D|log_dt|log_step|dt_bias|inv_dt|time_.*|x_.*|k_k|k_a|r_k|[wav]0|.*decay"
    "|Lambda.*|nu_log|theta_log|gamma_log|recurrent_param|alpha|beta|gamma|delta|omega"
)
"""Names of parameters that are decays, step sizes, state matrices, mixing vectors: zero is no default for them."""
UNDECAYED = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.Embedding, UnitRMSNorm, Absolute, Relative)


def build(name, role="lm"):
    """On the meta device, which has names, kinds and shapes; None where the architecture cannot play the role."""
    recipe = zoo.recipe(name)
    shape = dataclasses.replace(SHAPE, width=16 * recipe.width_multiple, depth=max(2, len(recipe.mixers)))
    try:
        return sizing.sketch(name, role, shape)
    except zoo.Unsupported:
        return None


def groups(model):
    """(peak rate, decay) by parameter name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = parameter_groups(model, lr=LR, weight_decay=DECAY)
    return {names[id(p)]: (group["peak"], group["weight_decay"]) for group in found for p in group["params"]}


def test_the_groups_of_every_architecture(architecture):
    """Every parameter stands in exactly one, a copy of the model has the same, and nothing with a meaning decays.

    Matrices of linear layers do; nothing of fewer than two dimensions, no norm, table or position, no decay, step or
    state matrix, unless an override says so; in any role.
    """
    for role in ROLES:
        model = build(architecture, role)
        if model is None:
            continue
        found = parameter_groups(model, lr=LR, weight_decay=DECAY)
        listed = [parameter for group in found for parameter in group["params"]]
        assert len(listed) == len({*listed}), role
        assert {*listed} == {p for p in model.parameters() if p.requires_grad}, role
        assert len({(group["peak"], group["weight_decay"]) for group in found}) == len(found)
        assert groups(copy.deepcopy(model)) == groups(model), role
        modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
        overrides = model.param_overrides()
        for key, (_, decay) in groups(model).items():
            owner, _, leaf = key.rpartition(".")
            forced, kind = overrides.get(key, ParamOverride()).decay, type(modules[owner])
            if parameters[key].dim() < 2 or MEANING.fullmatch(leaf) or issubclass(kind, UNDECAYED):
                assert decay == 0.0, f"{role}: {key} {tuple(parameters[key].shape)} decays"
            elif forced is not None:
                assert decay == (DECAY if forced else 0.0), f"{role}: {key}"
            elif issubclass(kind, nn.Linear) and leaf == "weight":
                assert decay == DECAY, f"{role}: {key} does not decay"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s4", "log_dt log_A_real A_imag P D"),
        ("rwkv4", "time_decay time_first time_mix_k time_mix_v time_mix_r"),
        ("mamba2", "A_log D dt_bias"),
        ("lru", "nu_log theta_log gamma_log"),
    ],
)
def test_the_words_above_meet_the_parameters_they_mean(name, expected):
    assert {key.rpartition(".")[2] for key in groups(build(name))} >= {*expected.split()}
    assert all(MEANING.fullmatch(leaf) for leaf in expected.split())


def test_an_override_scales_caps_and_forces():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.fast, self.slow, self.raw = (nn.Parameter(torch.zeros(2)) for _ in range(3))

        def param_overrides(self):
            return {
                "fast": ParamOverride(lr_scale=3.0),
                "slow": ParamOverride(lr_max=0.001),
                "raw": ParamOverride(decay=True, lr_scale=0.5),
            }

    assert groups(Odd()) == {
        "linear.weight": (LR, DECAY),
        "linear.bias": (LR, 0.0),
        "fast": (3 * LR, 0.0),
        "slow": (0.001, 0.0),
        "raw": (LR / 2, DECAY),
    }


def test_a_frozen_parameter_is_left_out_and_a_tied_table_stands_in_one_group():
    model = zoo.build("pre_ln", "lm", shape=SHAPE)
    model.head.weight.requires_grad_(False)
    assert "head.weight" not in groups(model)
    model = zoo.build("pre_ln", "lm", shape=SHAPE, tie=True)
    found = parameter_groups(model, lr=LR, weight_decay=DECAY)
    assert sum(p is model.head.weight for group in found for p in group["params"]) == 1


def test_setting_the_rate_keeps_the_ratios():
    optimizer = adamw(zoo.build("s4d", "lm", shape=SHAPE), lr=LR, betas=(0.9, 0.95), weight_decay=DECAY)
    peaks = [group["peak"] for group in optimizer.param_groups]
    assert len(set(peaks)) > 1, "S4D trains A and Δ more slowly"
    set_lr(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25 * peak for peak in peaks]


def test_a_step_is_over_on_any_device_when_its_numbers_are_read(monkeypatch):
    order, model = [], zoo.build("lstm", "lm", shape=SHAPE)
    batch = zoo.Batch(*torch.randint(11, (2, 3, 64)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *_: order.append("update"))
    for name in ("item", "__float__"):  # each waits for what was asked of a GPU before
        read = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, read=read: order.append("read") or read(self))
    loss = lambda outputs, batch: outputs.square().mean()  # noqa: E731
    descend(model, [(batch, None)], loss, optimizer, autocast=contextlib.nullcontext(), clip=1.0)
    assert order.index("update") < len(order) - 1
    assert order[-1] == "read"

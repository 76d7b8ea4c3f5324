"""Defaults that architectures bring along: found on built models, against what the optimiser does with them."""

import pytest
import torch
from torch import nn

import zoo
from harness.records.record import Override
from harness.training.optimizer import parameter_groups
from harness.training.overrides import describe, overrides_of
from zoo import architectures
from zoo.contract import Mixer, Model, ParamOverride
from zoo.types import Part, Recipe, Shape, Traits

SHAPE = Shape(length=16, vocab=11, outputs=11, width=32, depth=1)


def built(name, **options) -> Model:
    with torch.device("meta"):
        return zoo.build(name, "lm", shape=SHAPE, **options)


def found(name, given=(), **options):
    return {(d.what, d.value): d for d in overrides_of(built(name, **options), given)}


def test_s4d_counts_its_slow_parameters():
    model, own = built("s4d"), found("s4d")
    slow = own.pop(("lr_max", 1e-3))
    assert slow.names == ("log_dt", "log_A_real", "A_imag", "B")
    assert slow.parameters == sum(p.numel() for n, p in model.named_parameters() if n.rsplit(".")[-1] in slow.names)
    assert own.keys() == {("initialisation", "S4D")}, "they would not decay anyway"


def test_a_recipe_of_its_own_is_listed_unless_the_suite_gave_it():
    own = found("transformer_2017", heads=2)
    size = sum(p.numel() for p in built("transformer_2017", heads=2).parameters())
    for key in (("schedule", "inverse_sqrt"), ("label_smoothing", 0.1), ("dropout", 0.1)):
        assert own[key].parameters == size
    given = {"label_smoothing": 0.2, "dropout": 0.3, "schedule": None}
    assert {what for what, _ in found("transformer_2017", given, heads=2, **given)} == {"initialisation"}


@pytest.mark.parametrize("name", ["s4d", "lru", "rwkv7", "lstm", "hyena", "pre_ln", "mamba2"])
def test_without_its_overrides_a_model_would_be_trained_otherwise_by_just_what_is_listed(name):
    """Counted from the optimiser's groups: parameters whose rate or decay is another than without overrides."""
    model = built(name)
    lr, decay = 0.1, 0.3

    def groups():
        made = parameter_groups(model, lr=lr, weight_decay=decay)
        return {p: (group["peak"], group["weight_decay"]) for group in made for p in group["params"]}

    own, overridden = overrides_of(model), groups()
    model.param_overrides = dict
    plain = groups()
    for index, kinds in ((0, ("lr_max", "lr_scale")), (1, ("decay",))):
        changed = sum(p.numel() for p in plain if overridden[p][index] != plain[p][index])
        assert sum(d.parameters for d in own if d.what in kinds) == changed


def test_a_mixer_that_leaves_everything_to_the_suite_has_none():
    class Plain(Mixer):
        traits = Traits(causal="strict", bidirectional=False, resumable=False)

        def __init__(self, context):
            super().__init__(context)
            self.inner = nn.Linear(context.width, context.width)

        def forward(self, x, *, mask=None, state=None):
            return self.inner(x), None

    class Overriding(Plain):
        def param_overrides(self):
            return {"inner.weight": ParamOverride(decay=False, lr_scale=0.5), "inner.bias": ParamOverride(decay=False)}

    architectures.register("plain_mixer")(lambda: Recipe(mixer=Part(Plain), channel=None))
    architectures.register("overriding_mixer")(lambda: Recipe(mixer=Part(Overriding), channel=None))
    assert found("plain_mixer") == {}
    assert {key: d.parameters for key, d in found("overriding_mixer").items()} == {
        ("lr_scale", 0.5): 32 * 32,
        ("decay", False): 32 * 32,
    }


def test_in_words():
    one = Override("lr_max", 1e-3, 1234, ("log_dt", "B"))
    assert describe(one) == "lr ≤ 0.001 for log_dt, B (1.23k parameters)"
    assert describe(Override("decay", False, 1, ("log_dt",))).startswith("no decay for log_dt")
    assert describe(Override("other", "x", 1)) == "other x (1 parameters)"

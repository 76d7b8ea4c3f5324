"""Every registered architecture keeps the contract; and every check catches the fault it is there for."""

import pytest
import torch
from torch import nn

import zoo
from zoo import architectures, checks
from zoo.blocks.bidirectional import Bidirectional
from zoo.blocks.stack import Stack
from zoo.checks.subject import Subject, distance
from zoo.contract import Mixer, ParamOverride, Part, Recipe, Traits

from .models import in_pieces, logits


@pytest.mark.parametrize("name", zoo.names())
def test_contract(name):
    found = checks.run(name)
    assert [outcome.check for outcome in found] == list(checks.CHECKS)
    assert [outcome for outcome in found if outcome.status == "failed"] == []


@pytest.mark.parametrize("name", ["griffin", "mlstm", "slstm"])
def test_a_model_all_in_bfloat16_is_extended_as_it_runs(name):
    model = zoo.build(name, shape=zoo.Shape(length=8, vocab=7, outputs=7, width=32, depth=2)).bfloat16()
    tokens = torch.arange(12).view(2, 6) % 7
    found, _ = in_pieces(model, tokens, [3, 1, 2])
    torch.testing.assert_close(found, logits(model, tokens), rtol=0.1, atol=0.1)


class Leaky(Mixer):
    """Honest: h_t = σ(a) ⊙ h_{t−1} + W x_t, held at masked steps."""

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(self, context):
        super().__init__(context)
        self.a = nn.Parameter(torch.zeros(context.width))
        self.W = nn.Linear(context.width, context.width)

    def forward(self, x, *, mask=None, state=None):
        Wx = self.W(x)
        h, outputs = torch.zeros_like(Wx[:, 0]) if state is None else state["h"], []
        for t in range(x.shape[1]):
            after = torch.sigmoid(self.a) * h + Wx[:, t]
            h = after if mask is None else torch.where(mask[:, t, None], after, h)
            outputs.append(h)
        return torch.stack(outputs, dim=1), None if state is None else {"h": h}

    def init_state(self, batch, *, device, dtype):
        return {"h": torch.zeros(batch, len(self.a), device=device, dtype=dtype)}


def faulty(name, change=lambda self, x, y, state: (y, state), *, read=lambda x: x, **members):
    """Honest but for what it reads, how it changes outputs and the state after them, or other members."""

    def forward(self, x, *, mask=None, state=None):
        y, after = Leaky.forward(self, read(x), mask=mask, state=state)
        return change(self, x, y, after)

    return type(name, (Leaky,), {"forward": forward, **members})


class ForgetsAtItsBorder(Leaky):
    """In one call of more than 64 steps, what follows the 64th knows nothing of them."""

    def forward(self, x, *, mask=None, state=None):
        if x.shape[1] <= 64:
            return super().forward(x, mask=mask, state=state)
        first, _ = super().forward(x[:, :64])
        fresh = state and self.init_state(len(x), device=x.device, dtype=x.dtype)
        later, state = super().forward(x[:, 64:], state=fresh)
        return torch.cat([first, later], dim=1), state


class DropsItsState(Leaky):
    def forward(self, x, *, mask=None, state=None):
        return super().forward(x, mask=mask)[0], state


class KeepsThePaddedState(Leaky):
    def forward(self, x, *, mask=None, state=None):
        return super().forward(x, state=state)


class AveragesPadding(Mixer):
    traits = Traits(causal="no", bidirectional=True, resumable=False)

    def forward(self, x, *, mask=None, state=None):
        return x - x.mean(1, keepdim=True), None


class PoisonsGradients(Leaky):
    """Its outputs are right, but √ has no slope at the zeros that padding becomes."""

    def forward(self, x, *, mask=None, state=None):
        y, state = super().forward(x, mask=mask, state=state)
        seen = self.W(x) if mask is None else self.W(x) * mask[..., None]
        return y + seen.square().sum(-1, keepdim=True).sqrt().sin(), state


class HasAnIdleParameter(Leaky):
    def __init__(self, context):
        super().__init__(context)
        self.idle = nn.Parameter(torch.ones(3))


class ScalesWhatItFinds(Leaky):
    """Initialised by one factor for each time it is reset."""

    def __init__(self, context):
        super().__init__(context)
        nn.init.ones_(self.a)

    def reset_parameters(self, *, layer, depth):
        with torch.no_grad():
            self.a.mul_(2)


class CountsItsBuilds(Leaky):
    built = 0

    def __init__(self, context):
        super().__init__(context)
        CountsItsBuilds.built += 1
        nn.init.constant_(self.a, CountsItsBuilds.built)


HintsAtNothing = faulty("HintsAtNothing", param_overrides=lambda self: {"b": ParamOverride(decay=False)})
ClaimsBothWays = faulty("ClaimsBothWays", traits=Traits(causal="strict", bidirectional=True, resumable=True))
CutsLongSequences = faulty("CutsLongSequences", read=lambda x: x[:, :20])
FAULTS = {
    "causality": [
        faulty("Peeks", lambda self, x, y, state: (y + nn.functional.pad(x, (0, 0, 0, 1))[:, 1:], state)),
        faulty(  # only where a sequence is longer than its chunks of 64 steps
            "PeeksWithinChunks",
            lambda self, x, y, state: (torch.cat([y[:, :64], y[:, 64:] + x[:, 64:].sum(1, keepdim=True)], 1), state),
        ),
        faulty("ClaimsToLeak", traits=Traits(causal="leaky", bidirectional=False, resumable=True)),
    ],
    "both_ways": [ClaimsBothWays],
    "resumption": [DropsItsState, ForgetsAtItsBorder],
    "padding": [AveragesPadding],
    "padded_state": [KeepsThePaddedState],
    "padded_batches": [AveragesPadding, KeepsThePaddedState, PoisonsGradients],
    "nesting": [ScalesWhatItFinds],
    "groups": [HintsAtNothing],
    "roles": [faulty("DropsAStep", lambda self, x, y, state: (y[:, 1:], state))],
    "length": [CutsLongSequences],
    "gradients": [HasAnIdleParameter],
    "determinism": [faulty("DrawsNoise", read=lambda x: x + 1e-6 * torch.randn_like(x))],
    "batching": [faulty("CentresTheBatch", read=lambda x: x - x.mean(0))],
    "extremes": [faulty("Explodes", lambda self, x, y, state: ((2 * x).exp() * y, state))],
    "state_size": [
        faulty(
            "GrowsUnevenly",
            lambda self, x, y, state: (y, state and {**state, "t": torch.zeros(len(x), x.shape[1] ** 2)}),
        )
    ],
    "initialisation": [CountsItsBuilds],
    "precision": [
        faulty("Rounds", lambda self, x, y, state: (y.round() if torch.is_autocast_enabled("cpu") else y, state)),
        faulty("HalvesItsState", lambda self, x, y, state: (y, state and {"h": state["h"].to(self.W(x).dtype)})),
        faulty("WidensItsState", lambda self, x, y, state: (y, state and {"h": state["h"].double()})),
    ],
}


@pytest.fixture
def planted():
    """Registers a mixer for the length of one test, alone in its stack."""

    def plant(mixer, **recipe):
        name = mixer.__name__.lower()

        def make():
            return Recipe(mixer=Part(mixer), **{"channel": None, **recipe})

        architectures.register(name)(make)
        return name

    return plant


def test_an_honest_mixer_passes_everything(planted):
    found = checks.run(planted(Leaky))
    assert [outcome for outcome in found if outcome.status != "passed"] == []
    assert [outcome.check for outcome in found] == list(checks.CHECKS)


def test_every_check_has_a_planted_fault():
    assert FAULTS.keys() == checks.CHECKS.keys()


@pytest.mark.parametrize(("check", "mixer"), [(check, mixer) for check, found in FAULTS.items() for mixer in found])
def test_planted_fault_is_caught(planted, check, mixer):
    residual = {"residual": "plain", "norm": "none"} if mixer is CutsLongSequences else {}
    outcome = checks.apply(check, Subject(planted(mixer, **residual)))
    assert outcome.status == "failed", outcome


def test_a_fault_fails_its_own_check_only(planted):
    for mixer, check in ((HintsAtNothing, "groups"), (HasAnIdleParameter, "gradients"), (ClaimsBothWays, "both_ways")):
        failed = [outcome.check for outcome in checks.run(planted(mixer)) if outcome.status == "failed"]
        assert failed == [check]


def test_what_is_not_claimed_is_skipped(planted):
    class Modest(AveragesPadding):
        traits = Traits(causal="no", bidirectional=True, resumable=False, padding_safe=False)

    status = {outcome.check: outcome.status for outcome in checks.run(planted(Modest))}
    skipped = {check for check, found in status.items() if found == "skipped"}
    assert skipped == {"causality", "padding", "padded_batches", "padded_state", "resumption", "state_size"}
    assert "failed" not in status.values()


def test_a_state_it_does_not_claim_is_a_fault(planted, monkeypatch):
    class Shy(Leaky):
        traits = Traits(causal="strict", bidirectional=False, resumable=False)

    name = planted(Shy)
    assert checks.apply("resumption", Subject(name)).status == "skipped"
    monkeypatch.setattr("zoo.blocks.heads.SequenceModel.init_state", lambda model, batch: {})
    assert checks.apply("resumption", Subject(name)).status == "failed"


def test_an_error_is_reported_and_random_state_kept(planted):
    class Raises(Leaky):
        def forward(self, x, *, mask=None, state=None):
            raise KeyError("lost")

    before = torch.get_rng_state()
    outcome = checks.apply("batching", Subject(planted(Raises)))
    assert (outcome.status, outcome.note) == ("failed", "KeyError: 'lost'")
    assert torch.equal(torch.get_rng_state(), before)


class Special(Leaky):
    """With biases that start at one."""

    def reset_parameters(self, *, layer, depth):
        nn.init.ones_(self.W.bias)


@pytest.mark.parametrize("where", [Stack, Bidirectional])
def test_a_global_initialisation_is_caught(planted, monkeypatch, where):
    """`apply(init)` over a whole stack, or over the two directions of one mixer."""
    name = planted(Special)
    assert checks.apply("nesting", Subject(name)).status == "passed"
    method = "__init__" if where is Stack else "reset_parameters"
    original = getattr(where, method)

    def then_overwrites(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.apply(lambda module: isinstance(module, nn.Linear) and nn.init.zeros_(module.bias))

    monkeypatch.setattr(where, method, then_overwrites)
    outcome = checks.apply("nesting", Subject(name))
    assert outcome.status == "failed"
    assert outcome.note.startswith("lm: Special has another W.bias" if where is Stack else "classify: Special")


def test_distance_counts_a_nan_and_not_two_equal_infinities():
    lowest = torch.tensor([float("-inf"), 1.0])
    assert distance(lowest, lowest) == 0
    assert distance(lowest, torch.tensor([float("-inf"), 3.0])) == pytest.approx(2 / 3)
    assert distance(lowest, torch.tensor([0.0, 1.0])) == float("inf")
    assert distance(torch.tensor([float("nan")]), torch.tensor([1.0])) == float("inf")
    assert distance(torch.zeros(2), torch.zeros(1)) == float("inf")


@pytest.mark.parametrize("positions", ["scalar", "randomised", "t5"])
def test_positions_that_end_may_refuse_a_longer_sequence(positions):
    outcome = checks.apply("length", Subject("pre_ln", {"positions": positions}))
    assert (outcome.status, "refused" in outcome.note) == ("passed", positions != "t5"), outcome


def test_options_reach_the_model():
    found = checks.run("pre_ln", heads=2, positions="sinusoidal", tie=True)
    assert "failed" not in [outcome.status for outcome in found]
    with pytest.raises(TypeError, match="no option 'head'"):
        checks.run("pre_ln", head=2)
    with pytest.raises(KeyError, match="pre_ln"):
        checks.run("pre_nl")

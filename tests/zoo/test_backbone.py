"""The stack: residual types (tests/oracles has their equations), both directions, padding to a length, hybrids."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.zoo.models import close, randomise
from zoo.architectures.lstm import LSTM
from zoo.architectures.mlp_mixer import TokenMLP
from zoo.blocks.bidirectional import Bidirectional
from zoo.blocks.stack import Stack
from zoo.contract import LayerContext, Mixer, Part, Recipe, Traits, Unsupported, combine
from zoo.layers.norms import make_norm
from zoo.layers.tensors import reverse

T, D = 7, 8
LENGTHS = torch.tensor([7, 4, 0])
MASK = torch.arange(T) < LENGTHS[:, None]


def stack(recipe, *, depth=2, causal=True, length=T):
    torch.manual_seed(0)
    return randomise(Stack(recipe, LayerContext(width=D, length=length, depth=depth), causal=causal).double())


def inputs(steps=T, seed=1):
    return torch.randn(3, steps, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norm(x, module):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + module.eps).sqrt() * module.weight + module.bias


def test_plain_is_f_of_f():
    made, x = stack(Recipe(mixer=Part(LSTM), channel=None, residual="plain")), inputs()
    first, second = made.sublayers
    y, state = made(x)
    close(y, second.inner(first.inner(x)[0])[0])
    assert state is None
    assert not any(isinstance(module, nn.LayerNorm) for module in made.modules())


def test_deepnorm_starts_branches_small():
    beta = 24**-0.25
    recipe = Recipe(mixer=Part("attention"), residual="deepnorm")
    fresh = Stack(recipe, LayerContext(width=256, length=T, depth=3), causal=True)
    attention, mlp = (fresh.sublayers[i].inner for i in (2, 3))
    q, k, v = attention.qkv.weight.chunk(3)
    for weight, scale in ((q, 1), (k, 1), (v, beta), (attention.out.weight, beta), (mlp.up.weight, beta)):
        assert weight.std().item() == pytest.approx(scale / 16, rel=0.02)
    assert mlp.down.weight.std().item() == pytest.approx(beta / 32, rel=0.02)


def test_rezero_is_the_identity_until_it_has_learned():
    recipe, x = Recipe(mixer=Part("attention"), residual="rezero"), inputs()
    close(Stack(recipe, LayerContext(width=D, length=T, depth=2), causal=True).double()(x)[0], x)


def test_reversible_streams_can_be_run_backwards():
    """The equations, and their inverse, which is what the residual type is for."""
    made, x = stack(Recipe(mixer=Part("attention"), residual="reversible")), inputs()
    a, b = x, x
    blocks = list(zip(made.sublayers[0::2], made.sublayers[1::2], strict=True))
    for f, g in blocks:
        a = a + f.inner(norm(b, f.norm))[0]
        b = b + g.inner(norm(a, g.norm))[0]
    close(made(x)[0], norm((a + b) / 2, made.norm))
    for f, g in reversed(blocks):
        b = b - g.inner(norm(a, g.norm))[0]
        a = a - f.inner(norm(b, f.norm))[0]
    close(a, x)
    close(b, x)


@pytest.mark.parametrize(("kind", "eps", "shift"), [("rms", 1e-6, 0), ("rms_eps5", 1e-5, 0), ("rms_one", 1e-6, 1)])
def test_rms_norms(kind, eps, shift):
    made, x = make_norm(kind, D).double(), inputs()
    with torch.no_grad():
        made.weight.add_(torch.randn(D))
    close(made(x), x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * (made.weight + shift))


def test_layers_share_what_runs_across_them():
    class Counts(Mixer):
        traits = Traits(causal="strict", bidirectional=False, resumable=True)
        shared_context = True

        def forward(self, x, *, mask=None, state=None, shared_context=None):
            shared_context["n"] = shared_context.get("n", 0) + 1
            return torch.full_like(x, shared_context["n"]), state

    def run(residual, *, depth=3, causal=True):
        recipe = Recipe(mixer=Part(Counts), channel=None, residual=residual, norm="none")
        return Stack(recipe, LayerContext(width=D, length=T, depth=depth), causal=causal)

    for made, total in ((run("plain"), 3), (run("parallel"), 6), (run("plain", depth=2, causal=False), 4)):
        for _ in range(2):  # each pass starts anew, and so does each direction
            close(made(0 * inputs())[0], torch.full((3, T, D), float(total), dtype=torch.float64))


def test_dropout_acts_on_each_branch_while_training():
    recipe = Recipe(mixer=Part("attention"), residual="pre", dropout=0.5)
    made, x = stack(recipe), inputs()
    assert torch.equal(made(x)[0], made(x)[0])
    made.train()
    assert not torch.equal(made(x)[0], made(x)[0])
    assert sum(isinstance(module, nn.Dropout) for module in made.modules()) == 4


def test_layers_know_their_place():
    class Noting(Mixer):
        traits = Traits(causal="strict", bidirectional=True, resumable=True)

        def __init__(self, context):
            super().__init__(context)
            self.context = context

        def forward(self, x, *, mask=None, state=None):
            return x, state

        def reset_parameters(self, *, layer, depth):
            self.reset = layer, depth

    made = Stack(Recipe(mixer=Part(Noting)), LayerContext(width=D, length=T, depth=3), causal=False)
    notes = [made.sublayers[i].inner for i in (0, 2, 4)]
    assert [(n.context.layer, n.context.depth, n.context.causal, n.reset) for n in notes] == [
        (i, 3, False, (i, 3)) for i in range(3)
    ]


def test_reverse_turns_only_the_valid_prefix():
    x = inputs()
    turned = reverse(x, MASK)
    for row, n in enumerate(LENGTHS):
        close(turned[row, :n], x[row, :n].flip(0))
        close(turned[row, n:], x[row, n:])
    close(reverse(turned, MASK), x)
    close(reverse(x, None), x.flip(1))


def test_bidirectional_adds_the_two_directions_of_each_row():
    made, x = stack(Recipe(mixer=Part(LSTM), channel=None, residual="plain"), depth=1, causal=False), inputs()
    both = made.sublayers[0].inner
    assert isinstance(both, Bidirectional)
    y = made(x, mask=MASK)[0]
    for row, n in enumerate(LENGTHS[:2]):
        alone = x[row : row + 1, :n]
        close(y[row, :n], (both.ahead(alone)[0] + both.back(alone.flip(1))[0].flip(1))[0])


def test_bidirectional_has_two_sets_of_weights_and_the_traits_of_an_encoder():
    torch.manual_seed(0)
    context = LayerContext(width=D, length=T)
    both = Bidirectional(LSTM(context), LSTM(context))
    both.reset_parameters(layer=0, depth=1)
    assert not torch.equal(both.ahead.lstm.weight_ih_l0, both.back.lstm.weight_ih_l0)
    assert (both.traits.causal, both.traits.bidirectional, both.traits.resumable) == ("no", True, False)
    assert LSTM.traits.causal == "strict"


def test_a_mixer_that_looks_both_ways_is_not_doubled():
    made = stack(Recipe(mixer=Part("attention")), causal=False)
    assert not any(isinstance(module, Bidirectional) for module in made.modules())


@pytest.mark.parametrize("steps", [1, 5, 9])
def test_a_fixed_length_is_reached_with_masked_zeros(steps):
    made, x = stack(Recipe(mixer=Part(TokenMLP)), causal=False, length=9), inputs(steps)
    assert made.traits.length == "fixed"
    padded = F.pad(x, (0, 0, 0, 9 - steps))
    mask = (torch.arange(9) < steps).expand(3, 9)
    y = made(x)[0]
    assert y.shape == x.shape
    close(y, made(padded, mask=mask)[0][:, :steps])


def test_longer_than_fixed_is_refused():
    with pytest.raises(ValueError, match="10 steps; this model was built for at most 9"):
        stack(Recipe(mixer=Part(TokenMLP)), causal=False, length=9)(inputs(10))


class InFours(Mixer):
    """Wants a multiple of four steps, and a mask wherever some are padding."""

    traits = Traits(causal="strict", bidirectional=True, resumable=False, multiple=4)

    def forward(self, x, *, mask=None, state=None):
        assert x.shape[1] % 4 == 0
        self.valid = None if mask is None else mask.sum(1).tolist()
        return x, None


def test_a_multiple_is_reached_with_masked_steps():
    made = stack(Recipe(mixer=Part(InFours), channel=None, residual="plain"))
    assert made.traits.multiple == 4
    for steps in (1, T, 8):
        x = inputs(steps)
        close(made(x)[0], x)
        assert made.sublayers[0].inner.valid == (None if steps == 8 else [steps] * 3)


def test_a_hybrid_cycles_through_its_mixers():
    made = stack(Recipe(mixer=(Part(LSTM), Part("attention", heads=2)), channel=None), depth=5)
    kinds = [type(sublayer.inner).__name__ for sublayer in made.sublayers]
    assert kinds == ["LSTM", "Attention", "LSTM", "Attention", "LSTM"]
    assert made.sublayers[1].inner.heads == 2


def test_a_hybrid_is_as_able_as_its_weakest_part():
    with pytest.raises(Unsupported):
        stack(Recipe(mixer=(Part(LSTM), Part(TokenMLP))))
    strong = Traits(causal="strict", bidirectional=True, resumable=True, multiple=4)
    weak = Traits(
        "leaky", bidirectional=False, resumable=False, length="max", multiple=6, padding_safe=False, stochastic=True
    )
    assert combine([strong, weak]) == Traits(
        "leaky", bidirectional=False, resumable=False, length="max", multiple=12, padding_safe=False, stochastic=True
    )
    assert combine([strong, strong]) == strong
    fixed = Traits("no", bidirectional=True, resumable=False, length="fixed")
    assert (combine([weak, fixed]).causal, combine([weak, fixed]).length) == ("no", "fixed")


def test_a_residual_type_for_each_layer():
    """Layer 0 is x + f(norm(x)), layer 1 is x + norm(f(x)); one norm at the end."""
    torch.manual_seed(0)
    recipe = Recipe((Part("attention"), Part("attention")), residual=("pre", "reordered"), norm="rms")
    stack = Stack(recipe, LayerContext(width=8, length=6, depth=3), causal=True).double()
    for p in stack.parameters():
        torch.nn.init.normal_(p, std=0.5)
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    want = x
    for i, sublayer in enumerate(stack.sublayers):
        f, norm = (lambda z, inner=sublayer.inner: inner(z)[0]), sublayer.norm
        want = want + (norm(f(want)) if i in (2, 3) else f(norm(want)))
    torch.testing.assert_close(stack(x)[0], stack.norm(want), rtol=1e-12, atol=1e-12)


def test_residual_types_that_do_not_go_together():
    with pytest.raises(ValueError, match="2 mixers and 3 residual types do not pair up"):
        Recipe((Part("attention"), Part("attention")), residual=("pre",) * 3)
    recipe = Recipe((Part("attention"), Part("attention")), residual=("pre", "post"))
    with pytest.raises(ValueError, match="residual types pre, post hand on different streams"):
        Stack(recipe, LayerContext(width=8, length=6, depth=2), causal=True)

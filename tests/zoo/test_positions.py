"""Positions against their formulas: those that join the input, and those that act inside attention."""

import math

import pytest
import torch

from tests.zoo.models import close, in_pieces, randomise
from zoo.checks.subject import VOCAB, Subject
from zoo.checks.subject import T as STEPS
from zoo.contract import Batch, Part
from zoo.layers.positions import POSITIONS, absolute, acts, relative
from zoo.layers.positions.at_input import Absolute, Concatenated, Learned, Randomised, Scalar, Sinusoidal, sinusoid
from zoo.types import LayerContext, Unsupported

T, D = 6, 8


@pytest.mark.parametrize("width", [8, 7, 1])
def test_sinusoid_interleaves_sines_and_cosines(width):
    at = torch.tensor([[0, 1, 2], [7, 100, 5000]])
    x = torch.zeros(2, 3, width, dtype=torch.float64)
    found = Sinusoidal(LayerContext(width=width, length=T))(x, at)
    for row in range(2):
        for step in range(3):
            for i in range(width):
                angle = at[row, step].item() / 10000 ** ((i - i % 2) / width)
                wanted = math.cos(angle) if i % 2 else math.sin(angle)
                assert found[row, step, i].item() == pytest.approx(wanted, abs=1e-12)


def test_sinusoid_is_exact_far_out_in_float32():
    at = torch.tensor([[1_000_003]])
    module = Sinusoidal(LayerContext(width=D, length=T))
    single, double = module(torch.zeros(1, 1, D), at), module(torch.zeros(1, 1, D, dtype=torch.float64), at)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-7)


@pytest.mark.parametrize("at", [torch.arange(T + 1)[None], torch.tensor([[T]])], ids=["too long", "too far"])
def test_learned_ends_where_its_table_does(at):
    module = Learned(LayerContext(width=D, length=T))
    with pytest.raises(Unsupported, match=f"end at {T}"):
        module(torch.zeros(1, at.shape[1], D), at)


def test_scalar_is_one_number_in_the_open_unit_interval():
    module = Scalar(LayerContext(width=D, length=T)).double()
    found = module(torch.zeros(1, T, D, dtype=torch.float64), torch.arange(T)[None])
    numbers = torch.tensor([(t + 1) / (T + 1) for t in range(T)], dtype=torch.float64)
    torch.testing.assert_close(found[0], numbers[:, None] * module.w)
    with pytest.raises(Unsupported, match=f"end at {T}"):
        module(torch.zeros(1, 1, D), torch.tensor([[T]]))


def test_concatenated_projects_the_input_beside_its_sinusoids():
    module, x = Concatenated(LayerContext(width=D, length=T), features=6).double(), torch.randn(2, T, D).double()
    at = torch.tensor([[0, 9, 3]])
    W, b = module.project.weight, module.project.bias
    wanted = x[:, :3] @ W[:, :D].T + sinusoid(at, 6) @ W[:, D:].T + b
    torch.testing.assert_close(module(x[:, :3], at), wanted)


def test_randomised_draws_in_training_and_spreads_evenly_after():
    module = Randomised(LayerContext(width=D, length=T), of="learned", most=64).double()
    x, at = torch.zeros(2, T, D, dtype=torch.float64), torch.arange(T).expand(2, T)
    torch.manual_seed(0)
    module.train()
    rows = [(module(x, at)[0][:, None] == module.of.table).all(-1).nonzero()[:, 1] for _ in range(50)]
    assert all(bool((row[1:] > row[:-1]).all()) for row in rows)
    assert len({tuple(row.tolist()) for row in rows}) > 1
    assert max(int(row.max()) for row in rows) > 50
    module.eval()
    torch.testing.assert_close(module(x, at)[0], module.of.table[torch.arange(T) * (64 // T)])
    with pytest.raises(Unsupported):
        module(x[:, :1], torch.tensor([[7], [0]]))


@pytest.mark.parametrize("options", [{"most": T - 1}, {"of": "rope"}, {"of": "none"}, {"of": "randomised"}], ids=str)
def test_randomised_refuses_what_it_cannot_draw_for(options):
    with pytest.raises(ValueError, match="randomised"):
        Randomised(LayerContext(width=D, length=T), **options)


ROTARY = [Part("rope", **options) for options in ({}, {"convention": "interleaved"}, {"fraction": 0.5}, {"base": 1e2})]
ROTARY += [Part("xpos")]


def turned(part, x, at, *, key=False):
    return relative(part, heads=2, head_width=D, causal=True).rotate(x, torch.tensor([at]), key=key)


@pytest.mark.parametrize("part", ROTARY, ids=str)
def test_rotated_scores_depend_on_the_distance_alone(part):
    q, k = torch.randn(2, 1, 2, 1, D, dtype=torch.float64)
    near, far = ((turned(part, q, [t]) * turned(part, k, [s], key=True)).sum(-1) for t, s in ((5, 2), (1003, 1000)))
    torch.testing.assert_close(near, far, rtol=1e-9, atol=1e-9)
    other = (turned(part, q, [6]) * turned(part, k, [2], key=True)).sum(-1)
    assert (other - near).abs().min() > 1e-6


def test_a_fraction_leaves_the_rest_alone():
    x = torch.randn(1, 2, 3, D)
    found = turned(Part("rope", fraction=0.5), x, [0, 1, 2])
    torch.testing.assert_close(found[..., D // 2 :], x[..., D // 2 :], rtol=0, atol=0)
    half = relative(Part("rope"), heads=2, head_width=D // 2, causal=True)
    torch.testing.assert_close(found[..., : D // 2], half.rotate(x[..., : D // 2], torch.arange(3)[None], key=False))


NAMED = [*POSITIONS, {"rope": {"convention": "interleaved"}}, {"randomised": {"of": "learned", "most": 99}}]
TURNS = ["based", "bigbird", "griffin", "hybrid", "h3_attention", "linear_transformer", "linformer", "longformer"]
TURNS += ["nystromformer", "performer", "reformer", "sinkhorn"]
"""Architectures that take rotations, or of which a part does, beside those whose attention takes everything."""
FULL = ["pre_ln", "transformer_pp", "bilinear_attention", "local"]
SMALL = {"linformer": {"k": 4}, "bigbird": {"block_size": 1, "random_blocks": 1}, "sinkhorn": {"block_size": 4}}
SMALL |= {"nystromformer": {"num_landmarks": 4}, "reformer": {"chunk": 4}}


@pytest.mark.parametrize(
    ("name", "positions"),
    [(name, positions) for name in FULL for positions in NAMED] + [(name, "rope") for name in TURNS],
    ids=str,
)
def test_positions_count_from_the_first_step_and_go_on(name, positions):
    """Swapping two steps shows at a third (one layer of attention sees a set); a prefill and more is as one pass."""
    subject = Subject(name, {"positions": positions, **SMALL.get(name, {})})
    depth, ids = len(subject.recipe.mixers), torch.arange(2 * STEPS).view(2, STEPS) * 3 % VOCAB
    model = randomise(subject.build(subject.backbones[0], depth=depth).double())
    swapped = torch.cat([ids[:, [1, 0]], ids[:, 2:]], 1)
    change = (model.encode(swapped) - model.encode(ids))[:, -1].abs().max()
    if name in FULL and name != "local" and positions == "none":
        assert change < 1e-10
    elif positions != "none":
        assert change > 1e-8
    if name in TURNS:
        plain = Subject(name, {**subject.options, "positions": "none"}).build(model.role, depth=depth).double()
        plain.load_state_dict(model.state_dict())
        assert (model.encode(ids) - plain.encode(ids)).abs().max() > 1e-6, "rotations change nothing"
    if model.traits.resumable:
        close(in_pieces(model, ids, [3, 1, STEPS - 4])[0], model(Batch(inputs=ids)))


def test_an_encoding_is_absolute_or_acts_inside_attention():
    context = LayerContext(width=D, length=T)
    for name in POSITIONS:
        made = absolute(name, context)
        assert (type(made) is Absolute) == (acts(name) is not None or name == "none")
    assert {name for name in POSITIONS if acts(name) == "bias"} == {"alibi", "t5"}
    assert {name for name in POSITIONS if acts(name) == "rotation"} == {"rope", "xpos"}

"""A wrong combination is refused while a model is built, in one line that says what is wrong; what builds, runs.

Never a shape error in the forward pass, never a model that gives nonsense.
"""

import re
import typing
from typing import Annotated, Any, Literal

import pytest
import torch

import zoo
from tests.zoo.models import in_pieces
from zoo import architectures
from zoo.blocks.residual import RESIDUALS
from zoo.checks.subject import Subject
from zoo.contract import ROLES, Batch, Mixer, Part, Recipe, Shape, Traits, Unsupported
from zoo.layers import CHANNELS
from zoo.layers.norms import NORMS
from zoo.layers.positions import POSITIONS
from zoo.options import mismatch
from zoo.types import LABELLED

VOCAB, CLASSES, T, U = 7, 3, 6, 3


def shape(name, role, options, **sizes):
    """The narrowest shape of 8 features or more that the recipe's own multiple allows."""
    try:
        recipe = zoo.recipe(name, **options)
    except (ValueError, TypeError):
        multiple, depth = 1, 1
    else:
        multiple, depth = recipe.width_multiple, len(recipe.mixers)
    outputs = CLASSES if role in LABELLED else VOCAB
    given = {"length": T, "outputs": outputs, "vocab": VOCAB, "target_length": U, "depth": depth}
    return Shape(**{**given, "width": multiple * -(-8 // multiple), **sizes})


def build(name, role="lm", options=None, **sizes):
    torch.manual_seed(0)
    return zoo.build(name, role, shape=shape(name, role, options or {}, **sizes), **(options or {}))


def tokens(steps, below=VOCAB):
    return torch.randint(below, (2, steps), generator=torch.Generator().manual_seed(1))


def batch(model, steps):
    if model.role == "seq2seq":
        return Batch(inputs=tokens(steps), decoder_inputs=tokens(min(steps, model.shape.target_length)))
    return Batch(inputs=tokens(steps), inputs2=tokens(steps))


def faults(model):
    """What a built model does wrong: in training, on short sequences, in a future it must not see, after a state."""
    model.double()
    with torch.no_grad():
        for p in model.parameters():  # from its initialisation, which zeros may hide behind
            p.add_(torch.randn_like(p), alpha=0.1)
    length, found = model.shape.length, []
    logits = model.train()(batch(model, length))
    logits.sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if not all(bool(x.isfinite().all()) for x in (logits, *gradients)):
        found.append("training is not finite")
    model.eval()
    with torch.no_grad():
        if not bool(model(batch(model, 1)).isfinite().all()):
            found.append("one step is not finite")
        if model.role == "lm":
            found += _faults_in_time(model, tokens(length))
    return found


def _faults_in_time(model, ids):
    whole, half, found = model(Batch(inputs=ids)), ids.shape[1] // 2, []
    others = torch.cat([ids[:, :half], (ids[:, half:] + 1) % VOCAB], dim=1)
    if model.traits.causal == "strict":
        found += _differs("not causal", model(Batch(inputs=others))[:, :half], whole[:, :half])
    if model.traits.resumable:
        found += _differs("does not continue", in_pieces(model, ids, max(1, half))[0], whole)
    return found


def _differs(what, a, b):
    return [] if torch.allclose(a, b, rtol=1e-7, atol=1e-7) else [what]


def verdict(name, role, options, names=(), **sizes):
    """What is wrong with how a combination is answered; None where it is refused clearly, or builds and runs."""
    try:
        model = build(name, role, options, **sizes)
    except ValueError as error:  # Unsupported is one
        said = str(error)
        if "\n" in said or not said:
            return f"refused in more than one line: {said}"
        if not isinstance(error, Unsupported) and names and not any(re.search(rf"\b{n}\b", said) for n in names):
            return f"refused without the name of what is wrong: {said}"
        return None
    except Exception as error:
        return f"{type(error).__name__} while being built: {error}"
    try:
        return ", ".join(faults(model)) or None
    except Exception as error:
        return f"{type(error).__name__} in a built model: {error}"


def values(option):
    """For a number nothing, less than nothing and a few; for a choice each one but the default."""
    found = []
    for kind in (option.annotation, *typing.get_args(option.annotation)):
        if kind is int or kind is float:
            found += [0, -1, 3]
        elif kind is bool:
            found += [not option.default]
        elif typing.get_origin(kind) is Literal:
            found += [choice for choice in typing.get_args(kind) if choice != option.default]
    return found


def test_every_option_is_refused_or_runs(architecture):
    """Each option by itself, in one role or the other."""
    wrong, roles = {}, Subject(architecture).backbones
    cases = [(option.name, value) for option in architectures.get(architecture).options for value in values(option)]
    for index, (option, value) in enumerate(cases):
        problem = verdict(architecture, roles[index % len(roles)], {option: value}, names=(option,))
        if problem:
            wrong[option, value] = problem
    assert wrong == {}


COMMON = {
    "positions": list(POSITIONS),
    "residual": list(RESIDUALS),
    "norm": list(NORMS),
    "channel": [*CHANNELS, *(f"rwkv{version}" for version in (4, 5, 6, 7)), None, {"glu": {"expand": 1}}],
}


def test_every_part_and_size_is_refused_or_runs(architecture):
    """Parts and sizes take turns over the architectures and roles, so that all are tried and the test stays short."""
    at, wrong = zoo.names().index(architecture), {}
    cases = [({key: found[(at + turn) % len(found)]}, {}) for key, found in COMMON.items() for turn in (0, 4)]
    cases += [({"positions": "rope"}, {}), ({"tie": True, "dropout": 0.5}, {})]
    cases += [({}, sizes) for sizes in ({"width": 1}, {"width": 7}, {"width": 12}, {"length": 1}, {"length": 2})]
    for index, (options, sizes) in enumerate(cases):
        role = ROLES[(at + index) % len(ROLES)]
        problem = verdict(architecture, role, options, names=("width", *options, "positions"), **sizes)
        if problem:
            wrong[role, str({**options, **sizes})] = problem
    assert wrong == {}


REFUSED = [
    # name, role, options, sizes, what is raised, what is said
    ("pre_ln", "lm", {"heads": 3}, {"width": 16}, ValueError, "width 16 must be a multiple of 3, such as 15 or 18"),
    ("pre_ln", "lm", {"heads": 32}, {"width": 16}, ValueError, "width 16 must be a multiple of 32, such as 32"),
    ("pre_ln", "lm", {"heads": 0}, {}, ValueError, "heads must be at least 1"),
    ("pre_ln", "lm", {"depth": 0}, {}, ValueError, "depth must be at least 1, got 0"),
    ("pre_ln", "lm", {"dropout": 1.0}, {}, ValueError, "dropout must lie in [0, 1), got 1.0"),
    ("pre_ln", "lm", {"positions": "rope", "heads": 4}, {"width": 12}, ValueError, "fraction 1 of a head width of 3"),
    ("pre_ln", "lm", {"positions": {"rope": {"fraction": 2}}}, {}, ValueError, "fraction 2 of a head width"),
    ("pre_ln", "lm", {"positions": {"rope": {"fractoin": 1}}}, {}, TypeError, "no option 'fractoin'; did you mean"),
    ("pre_ln", "lm", {"positions": {"t5": {"buckets": 2.5}}}, {}, ValueError, "t5: buckets must be a whole number"),
    ("pre_ln", "lm", {"positions": {"rope": {"causal": True}}}, {}, TypeError, "rope has no option 'causal'"),
    ("pre_ln", "lm", {"positions": {"rope": {"convention": "neox"}}}, {}, ValueError, "half, interleaved"),
    ("pre_ln", "lm", {"positions": {"t5": {"buckets": 2, "max_distance": 1}}}, {}, ValueError, "buckets"),
    ("pre_ln", "classify", {"positions": "xpos"}, {}, Unsupported, "for causal attention only"),
    ("performer", "lm", {"positions": "alibi"}, {}, Unsupported, "are added to the scores of pairs, and performer off"),
    ("reformer", "lm", {"positions": "xpos"}, {}, Unsupported, "two magnitudes"),
    ("mamba", "lm", {"positions": "rope"}, {}, Unsupported, "mamba offers none to act on"),
    ("lstm", "classify", {"positions": "alibi"}, {}, Unsupported, "lstm offers none to act on"),
    ("pre_ln", "lm", {"channel": {"glu": {"expand": -1}}}, {}, ValueError, "glu: expand -1 leaves no hidden unit"),
    ("pre_ln", "lm", {"channel": {"glu": {"expand": 1}, "mlp": {}}}, {}, ValueError, "one name with its options"),
    ("pre_ln", "lm", {"channel": {"mlp": {"expnad": 1}}}, {}, TypeError, "mlp has no option 'expnad'; did you mean"),
    ("pre_ln", "lm", {"channel": {"rwkv4": {"expand": 0}}}, {}, ValueError, "expand 0 leaves no hidden unit"),
    ("pre_ln", "chat", {}, {}, ValueError, "unknown role 'chat'; known: lm"),
    ("pre_ln", "lm", {"residual": "pred"}, {}, ValueError, "unknown residual type 'pred'; did you mean 'pre'?"),
    ("pre_ln", "lm", {"channel": "mpl"}, {}, ValueError, "unknown channel mixer 'mpl'; did you mean 'mlp'?"),
    ("pre_ln", "lm", {"positions": "learnt"}, {}, ValueError, "unknown position encoding 'learnt'; did you mean 'lea"),
    ("pre_ln", "lm", {"norm": "rsm"}, {}, ValueError, "unknown norm 'rsm'; did you mean 'rms'?"),
    ("hybrid", "lm", {"pattern": ["mambo"]}, {}, ValueError, "did you mean 'mamba'?"),
    ("hybrid", "lm", {"pattern": []}, {}, ValueError, "`pattern` is a list"),
    ("hybrid", "lm", {"pattern": "mamba"}, {}, ValueError, "pattern must be a list"),
    ("hybrid", "lm", {"pattern": ["hybrid"]}, {}, ValueError, "no architecture or mixer"),
    ("hybrid", "lm", {"pattern": ["based"]}, {}, ValueError, "a pattern of its own"),
    ("hybrid", "lm", {"pattern": ["cross_attention"]}, {}, ValueError, "no architecture or mixer"),
    ("hybrid", "lm", {"pattern": [{"mamba": 3}]}, {}, ValueError, "for the options of mamba"),
    ("hybrid", "lm", {"pattern": [{"mamba": {"d_stat": 3}}]}, {}, ValueError, "did you mean 'd_state'?"),
    ("hybrid", "lm", {"pattern": [{"attention": {"heads": 2.5}}]}, {}, ValueError, "heads must be a whole number"),
    ("hybrid", "lm", {"pattern": [{"attention": {"heads": 0}}]}, {}, ValueError, "heads must be at least 1"),
    ("hybrid", "lm", {"pattern": ["mamba", "fourier"]}, {}, Unsupported, "cannot be made causal"),
    ("mlp_mixer", "lm", {}, {}, Unsupported, "cannot be made causal"),
    ("linformer", "seq2seq", {}, {}, Unsupported, "cannot be made causal"),
    ("linformer", "classify", {"k": T + 1}, {}, ValueError, f"k must lie in 1 .. {T}, the sequence length"),
    ("local", "lm", {"window": T + 1}, {}, ValueError, f"window {T + 1} must lie in 1 .. {T}, the sequence length"),
    ("griffin", "lm", {"window": T + 1}, {}, ValueError, f"window {T + 1} must lie in 1 .. {T}, the sequence length"),
    ("longformer", "lm", {"window": 2 * T + 2}, {}, ValueError, f"at most {2 * T}, twice the sequence length"),
    ("longformer", "lm", {"window": 3}, {}, ValueError, "window 3 must be even"),
    ("mamba", "lm", {"dt_scale": -1.0}, {}, ValueError, "dt_scale must be positive"),
    ("mamba2", "lm", {"headdim": 5}, {"width": 8}, ValueError, "width 8 must be a multiple of 5"),
    ("gla", "lm", {"expand_k": 1e-9}, {}, ValueError, "expand_k"),
    ("retnet", "lm", {"value_factor": 1e-9}, {}, ValueError, "value_factor"),
    ("retnet", "lm", {"heads": 8}, {"width": 8}, ValueError, "multiple of 16"),
    ("rwkv6", "lm", {"head_size_divisor": 0.0}, {"width": 32}, ValueError, "head_size_divisor must be positive"),
    ("rwkv7", "lm", {"v_lora": 0}, {"width": 32}, ValueError, "v_lora must be at least 1, got 0"),
    ("hyena", "lm", {"w": 0.0}, {}, ValueError, "w must be positive"),
    ("fast_weights", "lm", {"nu": 0}, {}, ValueError, "nu 0"),
    ("s4", "lm", {"d_state": 10**6}, {}, ValueError, "d_state 1000000 is too large for HiPPO"),
    ("pre_ln", "lm", {"positions": {"rope": {"base": 0}}}, {}, ValueError, "rope: base must be positive"),
    ("pre_ln", "lm", {"positions": {"xpos": {"scale_base": -1}}}, {}, ValueError, "scale_base must be positive"),
    ("reformer", "lm", {"buckets": [2, 3]}, {}, ValueError, "even factors"),
    ("mamba", "lm", {"d_state": 2.5}, {}, ValueError, "mamba: d_state must be a whole number, got 2.5"),
    ("mamba", "lm", {"d_state": 2.0}, {}, ValueError, "must be a whole number, got 2.0; write 2"),
    ("mamba", "lm", {"d_state": True}, {}, ValueError, "must be a whole number, got True"),
    ("mamba", "lm", {"dt_min": "1e-3"}, {}, ValueError, "must be a finite number, got '1e-3'"),
    ("mamba", "lm", {"expand": float("nan")}, {}, ValueError, "must be a finite number, got nan"),
    ("mamba", "lm", {"dt_init": "consant"}, {}, ValueError, "one of random, constant; did you mean 'constant'?"),
    ("mamba", "lm", {"bias": 1}, {}, ValueError, "bias must be true or false, got 1"),
    ("mamba", "lm", {"bais": True}, {}, TypeError, "mamba has no option 'bais'; did you mean 'bias'?"),
]


@pytest.mark.parametrize(
    ("name", "role", "options", "sizes", "kind", "message"),
    REFUSED,
    ids=[f"{name}-{options}" for name, _, options, *_ in REFUSED],
)
def test_refused_at_build(name, role, options, sizes, kind, message):
    given = {"width": 16, **sizes}
    with pytest.raises(kind, match=re.escape(message)) as caught:
        zoo.build(name, role, shape=shape(name, role, {}, **given), **options)
    assert (caught.type is Unsupported) == (kind is Unsupported)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["local", "griffin", "longformer", "linformer", "bigbird", "sinkhorn", "reformer"])
@pytest.mark.parametrize("length", [1, 2])
def test_a_default_window_shrinks_to_fit(name, length):
    assert verdict(name, "classify", {}, length=length) is None


@pytest.mark.parametrize(
    ("name", "options", "width"), [("mamba", {"expand": 1e30}, 16), ("pre_ln", {"heads": 10**9}, 10**9)]
)
def test_larger_than_a_tensor_can_be(name, options, width):
    with torch.device("meta"), pytest.raises(ValueError, match=f"width {width} and these options need a larger"):
        build(name, options=options, width=width)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"depth": 0}, "Shape.depth must be at least 1, got 0"),
        ({"width": 0}, "Shape.width must be at least 1, got 0"),
        ({"width": 2.5}, "Shape.width must be a whole number, got 2.5"),
        ({"length": "8"}, "Shape.length must be a whole number, got '8'"),
        ({"length": True}, "Shape.length must be a whole number, got True"),
        ({"features": 3}, "not both"),
    ],
)
def test_shapes_that_cannot_be(sizes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        shape("pre_ln", "lm", {}, **sizes)


def test_a_decoder_part_is_no_mixer():
    with pytest.raises(ValueError, match="cross_attention reads an encoder"):
        Recipe(mixer=Part("cross_attention"))


class Echo(Mixer):
    """Nothing but what it is given."""

    traits = Traits(causal="strict", bidirectional=True, resumable=True)

    def __init__(self, context, *, gain: float = 1.0, note="", **rest: Any):
        super().__init__(context)
        self.given = (gain, note, rest)

    def forward(self, x, *, mask=None, state=None):
        return x, state


def test_what_has_no_annotation_is_its_owners_affair():
    @zoo.register()
    def echoes(*, note=None):
        """Echo."""
        return Recipe(mixer=Part(Echo, note=note, more=object), channel=None)

    model = zoo.build("echoes", shape=shape("echoes", "lm", {}), note={1, 2})
    assert model.backbone.sublayers[0].inner.given == (1.0, {1, 2}, {"more": object})


@pytest.mark.parametrize(
    ("value", "annotation", "said"),
    [
        (3, int, None),
        (3, float, None),
        (3.0, int, "must be a whole number, got 3.0; write 3"),
        (False, float, "must be a finite number, got False"),
        (None, int, "must be a whole number, got None"),
        (None, int | None, None),
        ("3", int | None, "must be a whole number or none, got '3'"),
        ("auto", int | Literal["auto"], None),
        ("b", Literal["a", "bb"] | None, "must be a, bb or none, got 'b'; did you mean 'bb'?"),
        ("x", Literal["a", "b"], "'x' is not one of a, b"),
        (1, Literal[True], "must be True, got 1"),
        ([1, 2], list[int], None),
        ((1, 2), list[int], None),
        ([1, "x"], list[int] | int, "must be a list (each entry a whole number) or a whole number, got [1, 'x']"),
        (["a", {"b": 1}], tuple[str | dict[str, Any], ...], None),
        ({"a": None}, dict[str, dict[str, int] | None], None),
        ({1: None}, dict[str, int | None], "must be a mapping, got {1: None}"),
        (-1, Annotated[int, "negative"], None),
        (1.5, Annotated[int, "negative"], "must be a whole number, got 1.5"),
        (object, Any, None),
        (3, typing.TypeVar("Unknown"), None),
    ],
    ids=str,
)
def test_what_an_annotation_allows(value, annotation, said):
    assert mismatch(value, annotation) == said

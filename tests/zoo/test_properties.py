"""Properties that take knowledge of particular architectures; those that follow from traits are in `zoo.checks`.

The tables name what is known of an architecture; a new one need not stand in any.
"""

import math

import pytest
import torch

from zoo import size as sizing
from zoo.architectures.bilinear_attention import BilinearAttention
from zoo.checks.subject import LONG, Subject, T, distance
from zoo.contract import Shape
from zoo.layers.attention import Attention

EQUIVARIANT = {
    "bilinear_attention", "deepnorm", "gpt2", "linear_transformer", "parallel_block", "performer", "post_ln", "pre_ln",
    "residual_dual", "rezero", "sandwich_ln", "transformer_2017", "transformer_pp",
}  # fmt: skip
"""Without positions and looking both ways, these see a set."""


def test_permutation(architecture):
    """Permuting the steps permutes the outputs of attention over a set, and changes those of everything else."""
    subject = Subject(architecture, {"positions": "none"})
    if subject.encoder is None:
        assert architecture not in EQUIVARIANT
        pytest.skip("no encoder")
    model, x = subject.random("classify", steps=LONG), subject.vectors(1, LONG)
    order = torch.randperm(LONG, generator=torch.Generator().manual_seed(1))
    moved = distance(model.backbone(x[:, order])[0], model.backbone(x)[0][:, order])
    assert moved < 1e-10 if architecture in EQUIVARIANT else moved > 1e-3, moved


MASKED_FIRST = {
    "based", "bigbird", "delta_net", "fast_weights", "gated_delta_net", "gla", "griffin", "gss", "h3", "hyena",
    "linear_transformer", "local", "longformer", "lru", "mamba", "mamba2", "mlp_mixer", "mlstm", "reformer", "retnet",
    "rg_lru", "s4", "s4d", "s5", "sinkhorn", "slstm",
}  # fmt: skip
"""They mask before any projection, so that NaN reaches no gradient of a weight either."""


def test_nan_in_padding_leaves_no_trace(architecture):
    """In a mixer without the norm before it: not in valid outputs, in the next state, or in gradients of weights."""
    subject = Subject(architecture)
    if {Attention, BilinearAttention} & {part.kind for part in subject.recipe.mixers}:
        pytest.skip("a softmax over all keys multiplies NaN by zero")
    for role in subject.backbones:
        model = subject.random(role, steps=2 * T)
        apart = 1 if subject.recipe.channels[0] is None else 2
        for mixer in [sublayer.inner for sublayer in model.backbone.sublayers][::apart]:
            steps = model.shape.length if mixer.traits.length == "fixed" else T
            mask = torch.arange(steps) < torch.tensor([T, T // 2, 1, 0])[:, None]
            x, state = subject.vectors(4, steps), None
            if role == "lm" and mixer.traits.resumable:
                state = mixer.init_state(4, device="cpu", dtype=torch.float64)
                state = run(mixer, subject.vectors(4, 3), None, state)[1]
            wanted, after = run(mixer, x, mask, state)
            y, other = run(mixer, torch.where(mask[..., None], x, float("nan")), mask, state)
            torch.testing.assert_close(y[mask], wanted[mask], rtol=0, atol=0)
            torch.testing.assert_close(other, after, rtol=0, atol=0)
            if architecture in MASKED_FIRST:
                loss, parameters = y[mask].square().sum(), list(mixer.parameters())
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                assert all(bool(g.isfinite().all()) for g in gradients if g is not None)


def run(mixer, x, mask, state):
    extra = {"shared_context": {"residual": x}} if mixer.shared_context else {}
    return mixer(x, mask=mask, state=state, **extra)


# Bytes that one layer carries from step to step after T steps at width D, from papers and official configurations: 4 to
# a number, 8 to a counter of steps. Options are the architectures' defaults; H heads, windows of 64 steps.
H, WINDOW = 4, 64


def floats(numbers):
    return lambda D, T: 4 * numbers(D, T)


def cached(past, width, *, counter=0):
    """Keys and values of `past` steps, `width` numbers each; `counter` bytes beside them."""
    return lambda D, T: 4 * 2 * past(T) * width(D) + counter


attention = cached(lambda T: T, lambda D: D)
window = cached(lambda T: WINDOW - 1, lambda D: D, counter=8)
multi_query_window = cached(lambda T: WINDOW - 1, lambda D: D // H, counter=8)
mamba = floats(lambda D, T: 2 * D * 16 + 2 * D * (4 - 1))  # N = 16 to each of 2 D channels, a convolution of width 4
s4d = floats(lambda D, T: D * 64)  # 32 complex numbers to a channel
h3 = floats(lambda D, T: D * 64 + D * 64)  # the shift's and the diagonal system's N = 64
griffin = [lambda D, T: 4 * (D + 3 * D) + 1]  # h, three inputs of the convolution, and whether the row has begun
matrices = floats(lambda D, T: D * D // H)  # H of (D/H)²
base_conv = floats(lambda D, T: 2 * D * (3 - 1))
taylor = floats(lambda D, T: (1 + 16 + 16 * 17 // 2) * (D + H))  # 1, x and the products of d' = 16, and a normaliser
rwkv_matrices = floats(lambda D, T: 2 * D + D * 32)  # both token shifts, and D/32 heads of 32²

STATE = {
    "based": [base_conv, taylor, window, base_conv, base_conv],
    "bilinear_attention": [attention],  # of inputs and values
    **{name: [attention] for name in ("deepnorm", "gpt2", "parallel_block", "post_ln", "pre_ln", "residual_dual")},
    **{name: [attention] for name in ("rezero", "sandwich_ln", "transformer_2017", "transformer_pp")},
    "delta_net": [floats(lambda D, T: D * D // H + 3 * 3 * D)],  # three convolutions of width 4
    "fast_weights": [matrices],
    "gated_delta_net": [floats(lambda D, T: (3 * D // 4) * (3 * D // 2) // H + 3 * (3 * D // 4 * 2 + 3 * D // 2))],
    "gla": [floats(lambda D, T: D // 2 * D // H)],
    "griffin": [*griffin, *griffin, multi_query_window],
    "gru": [floats(lambda D, T: D)],
    "gss": [floats(lambda D, T: D // 4 * 2 * 512)],  # 512 complex numbers to each of D/4 channels
    "h3": [h3],
    "h3_attention": [h3, attention, h3, h3],
    "hybrid": [mamba, mamba, attention],
    "hyena": [lambda D, T: 4 * (T * D + 3 * D * (3 - 1)) + 8],  # what the one long convolution has seen, a short one
    "linear_transformer": [floats(lambda D, T: D * D // H + D)],
    "local": [window],
    "longformer": [cached(lambda T: WINDOW // 2, lambda D: D, counter=8)],
    "lru": [floats(lambda D, T: 2 * 128)],
    "lstm": [floats(lambda D, T: 2 * D)],
    "mamba": [mamba],
    "mamba2": [floats(lambda D, T: 2 * D * 128 + (2 * D + 2 * 128) * (4 - 1))],  # N = 128; the convolution has x, B, C
    "mega": [lambda D, T: 4 * (16 * D + T * (D // 4 + 2 * D)) + 8],  # 16 averages to a feature; keys D/4, values 2 D
    "min_gru": [floats(lambda D, T: D)],
    "mlstm": [floats(lambda D, T: (2 * D) ** 2 // H + 2 * D + H + 3 * 2 * D)],  # C, n, m at 2 D inside; a convolution
    "performer": [floats(lambda D, T: H * int(D // H * math.log(D // H)) * (D // H + 1))],  # d ln d features
    "retnet": [lambda D, T: 4 * (D * 2 * D // H) + 8],  # values twice as wide; rotations need the position
    "rg_lru": griffin,
    "rwkv4": [floats(lambda D, T: 5 * D)],  # two token shifts, numerator, denominator, exponent
    **{f"rwkv{version}": [rwkv_matrices] for version in (5, 6, 7)},
    **{name: [s4d] for name in ("s4", "s4d")},
    "s5": [floats(lambda D, T: 256)],  # 128 conjugate pairs, whatever the width
    "slstm": [floats(lambda D, T: 4 * D + 3 * D)],  # h, c, n, m; a convolution of width 4
    "synthesizer": [lambda D, T: 4 * T * D + 8],  # values only: scores come from each step alone
}


def sketch(name, width=64, **sizes):
    return sizing.sketch(name, "lm", Shape(length=200, vocab=11, outputs=11, width=width, **sizes))


@pytest.mark.parametrize("name", sorted(STATE))
def test_state_bytes(name):
    layers = STATE[name]
    for width, steps in ((64, 1), (64, WINDOW + 7), (128, 2)):
        model = sketch(name, width, depth=len(layers) + 1)
        position = 8
        stated = position + sum(layer(width, steps) for layer in (*layers, layers[0]))
        assert sizing.recurrent_state_bytes(model, steps) == stated, (width, steps)

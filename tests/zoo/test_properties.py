"""Properties that take knowledge of particular architectures; those that follow from traits are in `zoo.checks`.

The tables name what is known of an architecture; a new one need not stand in any.
"""

import math

import pytest
import torch

import zoo
from zoo import size as sizing
from zoo.checks.subject import LONG, Subject, distance
from zoo.contract import Shape

EQUIVARIANT = {
    "bilinear_attention", "deepnorm", "differential", "gated_attention", "gpt2", "gqa", "linear_transformer", "mla",
    "parallel_block", "performer", "post_ln", "pre_ln", "residual_dual", "rezero", "sandwich_ln", "transformer_2017",
    "transformer_pp",
}  # fmt: skip
"""Without positions and looking both ways, these see a set."""


@torch.no_grad()
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
hymba = floats(lambda D, T: mamba(D, T) // 4 + T * 3 * D // H)  # one of H heads has keys, and values twice as wide
hymba_window = floats(lambda D, T: mamba(D, T) // 4 + (WINDOW - 1) * 3 * D // H + 2)  # and a counter
s4d = floats(lambda D, T: D * 64)  # 32 complex numbers to a channel
h3 = floats(lambda D, T: D * 64 + D * 64)  # the shift's and the diagonal system's N = 64
griffin = [lambda D, T: 4 * (D + 3 * D) + 1]  # h, three inputs of the convolution, and whether the row has begun
matrices = floats(lambda D, T: D * D // H)  # H of (D/H)²
base_conv = floats(lambda D, T: 2 * D * (3 - 1))
taylor = floats(lambda D, T: (1 + 16 + 16 * 17 // 2) * (D + H))  # 1, x and the products of d' = 16, and a normaliser
wide_delta = floats(lambda D, T: (3 * D // 4) * (3 * D // 2) // H + 3 * (3 * D // 4 * 2 + 3 * D // 2))
square_delta = floats(lambda D, T: D * D // H + 3 * 3 * D)  # with three convolutions of width 4
rwkv_matrices = floats(lambda D, T: 2 * D + D * 32)  # both token shifts, and D/32 heads of 32²

STATE = {
    "based": [base_conv, taylor, window, base_conv, base_conv],
    "bilinear_attention": [attention],  # of inputs and values
    **{name: [attention] for name in ("deepnorm", "gpt2", "parallel_block", "post_ln", "pre_ln", "residual_dual")},
    **{name: [attention] for name in ("rezero", "sandwich_ln", "transformer_2017", "transformer_pp")},
    "deltaformer": [lambda D, T: 4 * 2 * T * D + T],  # keys and corrected values, and which are valid
    "differential": [attention],
    "forgetting": [lambda D, T: 4 * (2 * T * D + T * H)],  # beside the cache, of each key and head what is left of it
    "gated_attention": [attention],
    **{name: [square_delta] for name in ("delta_net", "gated_delta_net_2", "kda")},
    **{name: [wide_delta] for name in ("comba", "gated_delta_net")},  # keys of ¾ D, values twice as wide
    "fast_weights": [matrices],
    "gated_delta_product": [  # two keys and two values a token
        floats(lambda D, T: (3 * D // 4) * (3 * D // 2) // H + 3 * (3 * D // 4 * 3 + 2 * 3 * D // 2))
    ],
    "gated_slot_attention": [floats(lambda D, T: 2 * D * D // H)],  # D/H slots of keys and of values
    "gla": [floats(lambda D, T: D // 2 * D // H)],
    "gqa": [cached(lambda T: T, lambda D: D // 2)],  # two heads of four
    "griffin": [*griffin, *griffin, multi_query_window],
    "gru": [floats(lambda D, T: D)],
    "gss": [floats(lambda D, T: D // 4 * 2 * 512)],  # 512 complex numbers to each of D/4 channels
    "h3": [h3],
    "h3_attention": [h3, attention, h3, h3],
    "hgrn": [floats(lambda D, T: D)],
    "hgrn2": [matrices],
    "hybrid": [mamba, mamba, attention],
    "hyena": [lambda D, T: 4 * (T * D + 3 * D * (3 - 1)) + 8],  # what the one long convolution has seen, a short one
    "hymba": [hymba, hymba_window, hymba, hymba_window],
    "lightning_attention": [matrices],
    "linear_transformer": [floats(lambda D, T: D * D // H + D)],
    "local": [window],
    # 8 levels of past in 200 steps; a counter
    "log_linear_gated_delta_net": [lambda D, T: 4 * (8 * (3 * D // 4) * (3 * D // 2) // H + 3 * D * (4 - 1)) + 8],
    # N = 128; the convolution has x, B, C
    "log_linear_mamba2": [lambda D, T: 4 * (8 * 2 * D * 128 + (2 * D + 2 * 128) * (4 - 1)) + 8],
    "longformer": [cached(lambda T: WINDOW // 2, lambda D: D, counter=8)],
    "lru": [floats(lambda D, T: 2 * 128)],
    "lstm": [floats(lambda D, T: 2 * D)],
    "mamba": [mamba],
    "mamba2": [floats(lambda D, T: 2 * D * 128 + (2 * D + 2 * 128) * (4 - 1))],  # N = 128; the convolution has x, B, C
    "mamba3": [floats(lambda D, T: 2 * D * 64 + D // 32 * (16 + 64) + 2 * D)],  # N = 64; angles, the last key and input
    "mega": [lambda D, T: 4 * (16 * D + T * (D // 4 + 2 * D)) + 8],  # 16 averages to a feature; keys D/4, values 2 D
    "mesa_net": [floats(lambda D, T: 2 * D * D // H + 2 * 3 * D)],  # G and S; two convolutions of width 4
    "min_gru": [floats(lambda D, T: D)],
    "mla": [floats(lambda D, T: T * (D // 4 + D // H // 2))],  # a latent and half of a head
    "mixture_of_memories": [floats(lambda D, T: 5 * ((D // 2) ** 2 // H + 3 * 3 * D // 2))],  # four, and the shared one
    "mlstm": [floats(lambda D, T: (2 * D) ** 2 // H + 2 * D + H + 3 * 2 * D)],  # C, n, m at 2 D inside; a convolution
    "moba": [cached(lambda T: T, lambda D: D, counter=8)],
    "nsa": [cached(lambda T: T, lambda D: D // H, counter=8)],  # all heads share one of keys
    "parallax": [attention],
    "path": [lambda D, T: 4 * 2 * T * D + T + 4 * D * (3 - 1)],  # which keys are valid; a convolution of width 3
    "performer": [floats(lambda D, T: H * int(D // H * math.log(D // H)) * (D // H + 1))],  # d ln d features
    "precond_gated_delta_net": [lambda D, T: wide_delta(D, T) + 4 * (3 * D // 4)],  # how much each channel has held
    "raven": [floats(lambda D, T: 2 * D * D // H)],
    "retnet": [lambda D, T: 4 * (D * 2 * D // H) + 8],  # values twice as wide; rotations need the position
    "rg_lru": griffin,
    "rodimus": [floats(lambda D, T: 64 * 2 * D + 2 * D * (4 - 1))],
    "rwkv4": [floats(lambda D, T: 5 * D)],  # two token shifts, numerator, denominator, exponent
    **{f"rwkv{version}": [rwkv_matrices] for version in (5, 6, 7)},
    **{name: [s4d] for name in ("s4", "s4d")},
    "s5": [floats(lambda D, T: 256)],  # 128 conjugate pairs, whatever the width
    "slstm": [floats(lambda D, T: 4 * D + 3 * D)],  # h, c, n, m; a convolution of width 4
    "synthesizer": [lambda D, T: 4 * T * D + 8],  # values only: scores come from each step alone
    "titans": [lambda D, T: 4 * (3 * D * D // H + 3 * 3 * D) + 8],  # M, S and W; three convolutions of width 4
    "ttt_linear": [lambda D, T: 4 * (2 * (D // H + 1) * D + 3 * D) + 8],  # W and b twice; the input of the convolutions
    "wall": [lambda D, T: 4 * 2 * T * D + T],  # keys and values, and which are valid
    "yoco": [lambda D, T: 4 * D * D // H + 8, attention, lambda D, T: 0],  # rotations need the position; one cache
}


@pytest.mark.parametrize("name", sorted(STATE))
def test_state_bytes(name):
    layers = STATE[name]
    for width, steps in ((64, WINDOW + 7), (128, 2)):
        shape = Shape(length=200, vocab=11, outputs=11, width=width, depth=len(layers) + 1)
        stated = 8 + sum(layer(width, steps) for layer in (*layers, layers[0]))  # 8 for the position
        assert sizing.recurrent_state_bytes(zoo.build(name, shape=shape), steps) == stated, (width, steps)

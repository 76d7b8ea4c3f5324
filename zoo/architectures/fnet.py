"""FNet's mixing: the real part of a Fourier transform over time and features (Lee-Thorp et al. 2021, arXiv:2105.03824).

    y = Re F_T(F_D(x)),    y_{tk} = Σ_s Σ_d cos(2π (ts/T + kd/D)) x_{sd}                     (section 3.2, eq. 3)

without parameters and without normalisation. Every output depends on T itself, so a model has one length, to which the
Backbone pads with zeros.
"""

from jaxtyping import Float
from torch import Tensor

from zoo.architectures import register
from zoo.contract import Mask, Mixed, Mixer, Part, State, Traits
from zoo.layers.tensors import zero_padding
from zoo.ops.fourier import fourier


@register(
    family="mixers and transforms",
    paper="Lee-Thorp et al. 2021, FNet: Mixing Tokens with Fourier Transforms, arXiv:2105.03824",
    source="https://github.com/google-research/google-research (f_net)",
    deviations=(
        "padding is zero wherever time is mixed, up to the full length; the official code mixes in the embeddings of "
        "padding tokens, so that its outputs depend on them",
        "no LayerNorm and projection between the embedding and the first layer, no token types, no pooler",
        "initialisation is pre_ln's (1/sqrt(fan_in) for a constant 0.02)",
    ),
    channel=Part("mlp", activation="gelu_tanh"),
    residual="post",
    norm="layer_eps12",
    positions="learned",
)
class Fourier(Mixer):
    """FNet: the real part of a 2-D Fourier transform for attention, Post-LN; never causal, of one fixed length.

    Without parameters; masked steps count as zero.
    """

    traits = Traits(causal="no", bidirectional=True, resumable=False, length="fixed")

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        return fourier(zero_padding(x, mask)), None

"""The token-mixing MLP of MLP-Mixer (Tolstikhin et al. 2021, arXiv:2105.01601, eq. 1).

    y_{:,i} = W_2 GELU(W_1 x_{:,i} + b_1) + b_2

for each channel i, along time, with the same weights for all channels.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, State, Traits
from zoo.layers.linear import flax_dense_
from zoo.layers.tensors import zero_padding


@register(
    family="mixers and transforms",
    paper="Tolstikhin et al. 2021, MLP-Mixer: An all-MLP Architecture for Vision, arXiv:2105.01601",
    source="https://github.com/google-research/vision_transformer (vit_jax/models_mixer.py)",
    deviations=(
        "GELU exact (erf), as in timm; the official code uses the tanh approximation (Flax's default)",
        "one sequence of steps instead of image patches; shorter sequences are padded with zeros to the full length",
    ),
    norm="layer_eps6",
)
class TokenMLP(Mixer):
    """MLP-Mixer: an MLP along time, then an MLP along features, both Pre-LN; never causal, of one fixed length.

    The MLP along time has exactly `context.length` inputs and `tokens_ratio` · width hidden units.
    """

    traits = Traits(causal="no", bidirectional=True, resumable=False, length="fixed")

    def __init__(self, context: LayerContext, *, tokens_ratio: float = 0.5) -> None:
        super().__init__(context)
        hidden = int(tokens_ratio * context.width)
        if hidden < 1:
            raise ValueError(f"token_mlp: tokens_ratio {tokens_ratio} leaves no hidden units at width {context.width}")
        self.fc1 = nn.Linear(context.length, hidden)
        self.fc2 = nn.Linear(hidden, context.length)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        if x.shape[1] != self.fc1.in_features:
            raise ValueError(f"token_mlp: {x.shape[1]} steps, but it was built for exactly {self.fc1.in_features}")
        return self.fc2(F.gelu(self.fc1(zero_padding(x, mask).transpose(1, 2)))).transpose(1, 2), None

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """LeCun normal (truncated at two standard deviations, variance 1/fan_in after that) and zero biases (Flax)."""
        for linear in (self.fc1, self.fc2):
            flax_dense_(linear)

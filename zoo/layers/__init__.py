"""Layers that two or more architectures share, and the names by which suites call some of them."""

from zoo.registry import Table

MIXERS = Table(
    "mixer",
    {
        "attention": "zoo.layers.attention:Attention",
        "base_conv": "zoo.architectures.based:BaseConv",
        "cross_attention": "zoo.layers.cross_attention:CrossAttention",
        "fourier": "zoo.architectures.fnet:Fourier",
        "spatial_gate": "zoo.architectures.gmlp:SpatialGate",
        "token_mlp": "zoo.architectures.mlp_mixer:TokenMLP",
    },
)
"""Mixers that do not go by the name of an architecture."""
CHANNELS = Table(
    "channel mixer",
    {
        "glu": "zoo.layers.mlp:GLU",
        "mlp": "zoo.layers.mlp:MLP",
        "moe": "zoo.layers.mixture_of_experts:MixtureOfExperts",
    },
)
"""Channel mixers, likewise."""

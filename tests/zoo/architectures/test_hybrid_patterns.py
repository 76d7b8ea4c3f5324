"""Which layers the hybrids have by default, in order."""

import pytest

import zoo

MIXER = {
    "GatedDeltaNet": "D", "KDA": "D", "LightningAttention": "L", "Mamba": "M", "Mamba2": "M", "RecurrentBlock": "R",
    "Attention": "A", "MultiheadLatentAttention": "A", "LocalAttention": "A", "FalconH1": "H", "Hymba": "H",
}  # fmt: skip
CHANNEL = {"glu": "g", "mlp": "m", "moe": "e", "g_l_u": "g", "m_l_p": "m", "mixture_of_experts": "e"}
PATTERNS = {
    "qwen3_next": "De De De Ae",
    "kimi_linear": "De De De Ae",
    "minimax": "Le Le Le Le Le Le Le Ae",
    "jamba": "Mg Me Mg Me Ag Me Mg Me",
    "nemotron_h": "Mm Mm Mm M Am",
    "falcon_h1": "Hg",
    "hymba": "Hg",
    "olmo_hybrid": "Dg Dg Dg Ag",
    "griffin": "Rg Rg Ag",
}


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern(name):
    recipe = zoo.recipe(name)
    layers = zip(recipe.mixers, recipe.channels, strict=True)
    found = [MIXER[mixer.kind.__name__] + (CHANNEL[channel.name] if channel else "") for mixer, channel in layers]
    assert " ".join(found) == PATTERNS[name]


def test_olmo_hybrid_norms_attention_behind():
    recipe = zoo.recipe("olmo_hybrid", layer_types=["full_attention", "linear_attention"])
    assert recipe.residuals == ("reordered", "pre")


def test_dense_layers_of_kimi_linear():
    recipe = zoo.recipe("kimi_linear", mlp_layer_types=["dense", "sparse"])
    assert [channel.kind.__name__ for channel in recipe.channels] == ["GLU", "MixtureOfExperts"] * 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nemotron_h", {"layer_types": ["mlp"]}, "in layer_types an mlp must stand behind another layer"),
        ("qwen3_next", {"layer_types": ["conv"]}, "layer_types must be a list"),
        ("minimax", {"layer_types": []}, "a stack needs at least one mixer"),
        ("jamba", {"attn_layer_period": 0}, "attn_layer_period must be at least 1"),
    ],
)
def test_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        zoo.recipe(name, **options)

"""The one list of architectures: registering, plug-ins, options, messages, and how light it is."""

import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from tests.conftest import REPRESENTATIVE
from zoo import architectures
from zoo.layers.attention import Attention
from zoo.layers.mlp import GLU
from zoo.registry import load_plugin
from zoo.types import Part, Recipe, Shape

PLUGIN = """
import zoo
from zoo.types import Part, Recipe

@zoo.register(paper="none", source="here", deviations=("all",))
def {name}(*, heads: int = 2) -> Recipe:
    '''An attention
    model.

    More.'''
    return Recipe(mixer=Part("attention", heads=heads), width_multiple=heads)
"""


FAMILIES = {
    "transformers", "efficient attention", "fast weights and matrix states", "RWKV", "recurrent", "hybrids",
    "state spaces and long convolutions", "mixers and transforms",
}  # fmt: skip


def test_every_family_is_represented():
    assert {architectures.get(name).family for name in REPRESENTATIVE} == FAMILIES


def plugin(tmp_path, name="mine", folder="a"):
    path = tmp_path / folder / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(PLUGIN.format(name=name))
    return path


def test_listing_does_not_load_torch_and_one_architecture_is_imported_alone():
    code = (
        "import sys, zoo; assert zoo.names(); assert 'torch' not in sys.modules; zoo.recipe('gla'); "
        "loaded = {name for name in sys.modules if name.startswith('zoo.architectures.')}; "
        "assert loaded == {'zoo.architectures.gla'}, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_are_sorted_and_complete():
    assert zoo.names() == sorted(path.stem for path in Path(architectures.__file__).parent.glob("[!_]*.py"))


@pytest.mark.parametrize("name", zoo.names())
def test_entry_is_documented(name):
    entry = architectures.get(name)
    assert entry.about.endswith(".")
    assert entry.paper
    assert entry.source
    assert entry.family in FAMILIES
    assert Path(entry.origin).name == f"{name}.py"


def test_plugin_from_a_file_is_loaded_once(tmp_path):
    load_plugin(plugin(tmp_path))
    entry = architectures.get("mine")
    load_plugin(plugin(tmp_path))
    assert architectures.get("mine") is entry
    assert entry.about == "An attention model."
    assert [(option.name, option.default, option.annotation) for option in entry.options] == [("heads", 2, int)]
    assert (entry.paper, entry.source, entry.deviations) == ("none", "here", ("all",))
    model = zoo.build("mine", "lm", shape=Shape(length=4, vocab=5, outputs=5, width=6), heads=3, depth=1)
    assert model.backbone.sublayers[0].inner.heads == 3


def test_plugin_module_by_name(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(plugin(tmp_path, "some_module").parent)
    load_plugin("some_module")
    assert "some_module" in zoo.names()


def test_missing_plugins(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        load_plugin(tmp_path / "absent.py")
    with pytest.raises(ImportError, match="no_such_module"):
        load_plugin("no_such_module")


def test_a_broken_plugin_can_be_mended(tmp_path):
    path = plugin(tmp_path)
    good = path.read_text()
    path.write_text("raise RuntimeError('half done')")
    with pytest.raises(RuntimeError, match="half done"):
        load_plugin(path)
    path.write_text(good)
    load_plugin(path)
    assert "mine" in zoo.names()


def test_a_name_belongs_to_one_file(tmp_path):
    load_plugin(plugin(tmp_path, folder="a"))
    with pytest.raises(ValueError, match=r"'mine' is already registered by .*a/mine\.py"):
        load_plugin(plugin(tmp_path, folder="b"))
    with pytest.raises(ValueError, match="'lstm' is already registered"):
        load_plugin(plugin(tmp_path, "lstm"))


@pytest.mark.parametrize("name", ["Upper", "with-dash", "1st", "_"])
def test_names_are_lower_case_words(name):
    with pytest.raises(ValueError, match="lower-case"):
        architectures.register(name)(Attention)


def test_a_mixer_class_becomes_an_architecture():
    from zoo.contract import Mixer, Traits

    @zoo.register()
    class TwoWordsRNN(Mixer):
        """Nothing at all."""

        traits = Traits(causal="strict", bidirectional=True, resumable=True)

        def __init__(self, context, *, gain: float = 2.0):
            super().__init__(context)
            self.gain = gain

        def forward(self, x, *, mask=None, state=None):
            return self.gain * x, state

    assert [option.name for option in architectures.get("two_words_rnn").options] == ["gain"]
    model = zoo.build("two_words_rnn", shape=Shape(length=4, vocab=5, outputs=5, width=6), gain=3.0)
    assert [type(sublayer.inner).__name__ for sublayer in model.backbone.sublayers][:2] == ["TwoWordsRNN", "MLP"]
    assert model.backbone.sublayers[0].inner.gain == 3.0


def test_a_function_inherits_the_options_of_its_mixer():
    @zoo.register(options=Attention)
    def narrow(*, kv_heads: int = 1, **options) -> Recipe:
        """Attention with one head of keys and values."""
        return Recipe(Part(Attention, kv_heads=kv_heads, **options), channel=None)

    own = {option.name: option.default for option in architectures.get("narrow").options}
    later = {"head_dim": None, "qk_norm": False, "gate": False, "sinks": False}
    assert own == {"kv_heads": 1, "heads": 4, "bias": True, "scale": None} | later
    recipe = zoo.recipe("narrow", heads=3)
    assert (recipe.mixer, recipe.width_multiple) == (Part(Attention, kv_heads=1, heads=3), 3)
    with pytest.raises(ValueError, match="narrow: heads must be a whole number"):
        zoo.recipe("narrow", heads=2.5)


def test_the_recipe_around_a_class_has_known_fields():
    with pytest.raises(TypeError, match=r"'chanel' is no field of the Recipe around a mixer; did you mean 'channel'\?"):
        zoo.register("mine", chanel=None)(Attention)
    with pytest.raises(TypeError, match="'channel' is no field"):
        zoo.register("mine", channel=None)(lambda: Recipe(Part(Attention)))
    zoo.register("mine", channel=None, norm="rms", depth=3)(Attention)
    recipe = zoo.recipe("mine", heads=2)
    assert recipe == Recipe(Part(Attention, heads=2), channel=None, norm="rms", depth=3)


def test_a_part_may_be_an_architectures():
    rwkv = zoo.recipe("rwkv4", expand=2.0).channel
    assert zoo.recipe("pre_ln", channel={"rwkv4": {"expand": 2.0}}).channel == rwkv
    with pytest.raises(ValueError, match="mamba has no single channel mixer of its own"):
        zoo.recipe("pre_ln", channel="mamba")


def test_names_from_before_0_1_still_work():
    assert (zoo.Site, zoo.Hint) == (zoo.LayerContext, zoo.ParamOverride)
    assert zoo.recipe("pre_ln", wiring="post").residual == "post"

    class Old(Attention):
        def hints(self):
            return {"qkv.weight": zoo.Hint(lr_scale=2.0)}

    zoo.register("old")(Old)
    model = zoo.build("old", shape=Shape(length=4, vocab=5, outputs=5, width=8), depth=1)
    assert model.param_overrides() == {"backbone.sublayers.0.inner.qkv.weight": zoo.ParamOverride(lr_scale=2.0)}


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(KeyError, match=r"unknown architecture 'pre_lm'; did you mean 'pre_ln'\?"):
        architectures.get("pre_lm")
    with pytest.raises(TypeError, match=r"pre_ln has no option 'headz'; did you mean 'heads'\?"):
        zoo.recipe("pre_ln", headz=2)
    with pytest.raises(TypeError, match=r"pre_ln has no option 'xyz'; .*heads"):
        zoo.recipe("pre_ln", xyz=2)


def test_common_options_change_the_recipe():
    recipe = zoo.recipe("pre_ln", depth=3, channel="glu", residual="post", dropout=0.1, tie=True, positions="none")
    assert (recipe.depth, recipe.channel, recipe.residual, recipe.dropout) == (3, Part(GLU), "post", 0.1)
    assert zoo.recipe("pre_ln", channel=None).channel is zoo.recipe("pre_ln", channel="none").channel is None


def test_years():
    """The first year that a paper's line names; those since one are what `since` asks for."""
    years = {name: architectures.get(name).year for name in zoo.names()}
    assert (years["lstm"], years["pre_ln"], years["rwkv7"], years["hybrid"]) == (1997, 2020, 2025, None)
    late = {name for name, year in years.items() if (year or 0) >= 2024}
    assert set(zoo.list(since=2024)) == late
    assert zoo.list(since=2026, family="hybrids") == ["olmo_hybrid"]

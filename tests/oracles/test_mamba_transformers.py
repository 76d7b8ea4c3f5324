"""Mamba and Mamba-2 against transformers' ports without kernels, and MambaForCausalLM, in float64."""

import pytest
import torch

import zoo
from tests.zoo.models import in_pieces
from zoo.architectures.mamba import Mamba
from zoo.architectures.mamba2 import Mamba2
from zoo.contract import Batch, LayerContext, Shape
from zoo.published.mamba import transformers_pairs
from zoo.published.names import to_ours

from .compare import shaken, vectors

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("in_float64")
B, T = 2, 19
NAMES = {"d_state": "state_size", "d_conv": "conv_kernel", "bias": "use_bias", "conv_bias": "use_conv_bias"}


def config(width, **options):
    return transformers.MambaConfig(hidden_size=width, use_mambapy=False, use_associative_scan=False, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"d_state": 5, "d_conv": 3, "expand": 3, "dt_rank": 4, "bias": True},
        {"d_state": 1, "conv_bias": False},
    ],
    ids=str,
)
def test_mamba(oracle, options):
    from transformers.models.mamba.modeling_mamba import MambaMixer

    names = NAMES | {"dt_rank": "time_step_rank"}
    torch.manual_seed(0)
    theirs = shaken(MambaMixer(config(24, **{names.get(k, k): v for k, v in options.items()}), 0))
    proof, ours = oracle("mamba", "transformers, MambaMixer"), Mamba(LayerContext(24, T), **options)
    proof.layers(ours, theirs, vectors(B, T, 24), tolerance=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"d_state": 5, "headdim": 8},
        {"d_state": 3, "headdim": 4, "ngroups": 4, "expand": 3, "bias": True, "chunk_size": 4},
        {"d_state": 6, "headdim": 16, "ngroups": 2, "d_conv": 2, "conv_bias": False, "dt_limit": (0.2, 0.9)},
    ],
    ids=str,
)
def test_mamba2(oracle, options):
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    names = NAMES | {"headdim": "head_dim", "ngroups": "n_groups", "dt_limit": "time_step_limit"}
    heads = options.get("expand", 2) * 16 // options["headdim"]
    given = {names.get(k, k): v for k, v in {"ngroups": 1, **options}.items()}
    given |= {"hidden_size": 16, "num_heads": heads, "layer_norm_epsilon": 1e-5}
    torch.manual_seed(0)
    theirs = shaken(Mamba2Mixer(transformers.Mamba2Config(**given), 0))
    proof, ours = oracle("mamba2", "transformers, Mamba2Mixer"), Mamba2(LayerContext(16, T), **options)
    proof.layers(ours, theirs, vectors(B, T, 16), tolerance=1e-9)


def test_language_model_and_its_decoding(oracle):
    settings = config(16, vocab_size=11, num_hidden_layers=3, state_size=4, tie_word_embeddings=False)
    torch.manual_seed(0)
    theirs = shaken(transformers.MambaForCausalLM(settings)).eval()
    ours = zoo.build("mamba", "lm", shape=Shape(length=T, vocab=11, outputs=11, width=16, depth=3), d_state=4)
    ours = ours.double().eval()
    ours.load_state_dict(to_ours(transformers_pairs(ours), theirs.state_dict(), "theirs"))
    ids = torch.randint(11, (B, T))
    proof = oracle("mamba", "transformers, MambaForCausalLM")
    with torch.no_grad():
        want = theirs(ids).logits
        proof.outputs(ours(Batch(inputs=ids)), want, 1e-9)
        proof.outputs(in_pieces(ours, ids, [1] * T)[0], want, 1e-9)

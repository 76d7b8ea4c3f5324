"""Mamba against transformers' port (MambaMixer's slow path, MambaForCausalLM), in float64."""

import pytest
import torch

import zoo
from zoo.architectures.mamba import Mamba
from zoo.contract import Batch, LayerContext, Shape

transformers = pytest.importorskip("transformers")
B, T = 2, 19


@pytest.fixture(autouse=True)
def in_float64(monkeypatch):
    """The port casts to float32, by `.float()` and, in its norm, by `.to`."""
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *a, **k: x if a == (torch.float32,) else to(x, *a, **k))


def config(width, **options):
    return transformers.MambaConfig(hidden_size=width, use_mambapy=False, use_associative_scan=False, **options)


def randomise(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"d_state": 5, "d_conv": 3, "expand": 3, "dt_rank": 4, "bias": True},
        {"d_state": 1, "conv_bias": False},
    ],
    ids=str,
)
def test_layer(oracle, options):
    from transformers.models.mamba.modeling_mamba import MambaMixer

    names = {"d_state": "state_size", "d_conv": "conv_kernel", "dt_rank": "time_step_rank"}
    names |= {"expand": "expand", "bias": "use_bias", "conv_bias": "use_conv_bias"}
    theirs = randomise(MambaMixer(config(24, **{names[k]: v for k, v in options.items()}), 0))
    ours = Mamba(LayerContext(width=24, length=T), **options).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(B, T, 24, dtype=torch.float64, requires_grad=True)
    y, want = ours(x)[0], theirs(x)
    weights = torch.randn_like(want)
    proof = oracle("mamba", "transformers, MambaMixer")
    proof.outputs(y, want, 1e-9)
    ours_by_name, theirs_by_name = dict(ours.named_parameters()), dict(theirs.named_parameters())
    proof.gradients(gradients(y, weights, x, ours_by_name), gradients(want, weights, x, theirs_by_name), 1e-8)


def gradients(y, weights, x, parameters):
    leaves = {"input": x, **parameters}
    return dict(zip(leaves, torch.autograd.grad((y * weights).sum(), list(leaves.values())), strict=True))


def test_language_model_and_its_decoding(oracle):
    theirs = randomise(
        transformers.MambaForCausalLM(
            config(16, vocab_size=11, num_hidden_layers=3, state_size=4, tie_word_embeddings=False)
        )
    ).eval()
    ours = zoo.build("mamba", "lm", shape=Shape(length=T, vocab=11, outputs=11, width=16, depth=3), d_state=4)
    ours = ours.double().eval()
    names = {"embeddings.weight": "embedding.table.weight", "norm_f.weight": "backbone.norm.weight"}
    weights = {}
    for name, value in theirs.state_dict().items():
        name = name.removeprefix("backbone.")
        layer = name.replace("layers.", "backbone.sublayers.").replace(".mixer.", ".inner.")
        weights[names.get(name, layer).replace("lm_head", "head")] = value
    ours.load_state_dict(weights)
    ids = torch.randint(11, (B, T))
    proof = oracle("mamba", "transformers, MambaForCausalLM")
    with torch.no_grad():
        want = theirs(ids).logits
        proof.outputs(ours(Batch(inputs=ids)), want, 1e-9)
        state, steps = ours.init_state(B), []
        for token in ids.split(1, dim=1):
            logits, state = ours.extend(token, state)
            steps.append(logits)
        proof.outputs(torch.cat(steps, 1), want, 1e-9)

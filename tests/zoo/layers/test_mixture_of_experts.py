"""The mixture of experts: the contract in place of an MLP, what balances it, and what it counts."""

import pytest
import torch

import zoo
from zoo import checks
from zoo import size as sizing
from zoo.contract import LayerContext
from zoo.layers.mixture_of_experts import MixtureOfExperts

CONTEXT = LayerContext(width=16, length=32)


@pytest.mark.parametrize("options", [{}, {"score": "softmax", "shared_gate": True}, {"shared": 0, "balance": False}])
def test_contract(options):
    found = checks.run("pre_ln", channel={"moe": {"experts": 4, **options}})
    assert [outcome for outcome in found if outcome.status == "failed"] == []


def loads(mixer, x):
    return mixer.route(x)[0].flatten().bincount(minlength=len(mixer.bias))


def test_the_bias_balances():
    """From a router that has favourites, steps of AdamW on b alone lead to equal loads; without b nothing changes."""
    torch.manual_seed(0)
    mixer, x = MixtureOfExperts(CONTEXT, experts=8, top_k=2), torch.randn(512, 16)
    mixer.reset_parameters(layer=0, depth=1)
    x[:, 0] += 3
    mixer.router.weight.data[:, 0] = torch.linspace(-1, 1, 8)
    before = loads(mixer, x)
    optimizer = torch.optim.AdamW([mixer.bias], lr=3e-3, weight_decay=0.0)
    for _ in range(300):
        optimizer.zero_grad()
        mixer.route(x)[1].sum().backward()
        optimizer.step()
    after = loads(mixer, x)
    assert before.max() > 3 * before.float().mean()
    assert after.max() < 1.15 * after.float().mean()


def test_the_gradient_of_the_bias_is_the_excess_and_no_loss_reaches_it():
    torch.manual_seed(0)
    mixer, x = MixtureOfExperts(CONTEXT, experts=4, top_k=2), torch.randn(1, 32, 16)
    mixer.reset_parameters(layer=0, depth=1)
    mask = torch.arange(32)[None] < 20
    for scale in (1.0, 1e3):
        mixer.zero_grad()
        (scale * mixer(x, mask=mask)[0]).sum().backward()
        excess = loads(mixer, x[0, :20]) - 20 * 2 / 4
        torch.testing.assert_close(mixer.bias.grad, 1e-6 * excess)


def test_an_example_goes_through_k_experts():
    """Experts nobody is sent to get no gradient, and the parameters in use are those of k."""
    torch.manual_seed(0)
    mixer = MixtureOfExperts(CONTEXT, experts=6, top_k=2, shared=0)
    mixer.reset_parameters(layer=0, depth=1)
    mixer(torch.randn(1, 1, 16))[0].sum().backward()
    used = sum(int(grad.any()) for grad in mixer.gate_up.grad)
    assert used == 2
    one = sum(weight[0].numel() for weight in (mixer.gate_up, mixer.down))
    assert mixer.inactive == 4 * one
    model = zoo.build("pre_ln", shape=zoo.Shape(length=8, vocab=7, outputs=7, width=16, depth=2), channel="moe")
    inside = sizing.parameters(model, "non_embedding")
    assert sizing.parameters(model, "active") == inside - sum(m.inactive for m in mixers(model))
    assert sizing.active_parameters(zoo.build("pre_ln", shape=model.shape)) is None


def mixers(model):
    return [module for module in model.modules() if isinstance(module, MixtureOfExperts)]


def test_what_a_plugin_declares_idle_is_counted():
    """Only the zoo's own mixture says what is not in use: a size cannot be talked down."""

    class Modest(MixtureOfExperts):
        inactive = 10**9

    model = zoo.build(
        "pre_ln", shape=zoo.Shape(length=8, vocab=7, outputs=7, width=16), channel=zoo.contract.Part(Modest)
    )
    assert sizing.active_parameters(model) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 9}, "top_k 9 of 8 experts"),
        ({"experts": 0}, "experts must be at least 1"),
        ({"shared": 0, "shared_gate": True}, "no gate"),
        ({"scale": 0.0}, "scale must be positive"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MixtureOfExperts(CONTEXT, **options)

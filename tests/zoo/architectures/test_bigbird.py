"""BigBird: who sees whom, the plan of random blocks, full attention, padding."""

import pytest
import torch

from zoo import checks
from zoo.architectures.bigbird import BigBird, draw
from zoo.contract import LayerContext, Unsupported
from zoo.layers.attention import Attention

B, T, D, H = 3, 35, 8, 2


def build(length=T, *, layer=0, **options):
    """A float64 mixer with random parameters, and inputs."""
    torch.manual_seed(0)
    context = LayerContext(width=D, length=length, causal=False, layer=layer)
    mixer = BigBird(context, **{"heads": H, "block_size": 3, "random_blocks": 2, **options}).double()
    for parameter in mixer.parameters():
        parameter.data.normal_()
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def test_who_sees_whom():
    """By gradients, head by head: window, global and random blocks; the length is no whole number of blocks."""
    b, r, N = 3, 2, 12
    for head in range(H):
        mixer, x = build()
        for parameter in mixer.value.parameters():  # only this head reaches the output
            parameter.data.unflatten(0, (H, -1))[1 - head] = 0
        x.requires_grad_()
        y = mixer(x)[0][0].sum(-1)
        reached = torch.stack([torch.autograd.grad(out, x, retain_graph=True)[0][0].abs().sum(-1) > 0 for out in y])
        i, j = (torch.arange(N * b) // b)[:, None], torch.arange(N * b) // b
        seen = ((i - j).abs() <= 1) | (i == 0) | (i == N - 1) | (j == 0) | (j == N - 1)
        for block in range(1, N - 1):
            seen |= (i == block) & torch.isin(j, mixer.plan[head, block - 1])
        assert torch.equal(reached, seen[:T, :T])
        assert mixer.plan.shape == (H, N - 2, r)


@pytest.mark.parametrize("N", [12, 40])
@pytest.mark.parametrize("r", [1, 2, 3])
def test_random_blocks_are_distinct_and_elsewhere(r, N):
    plan = torch.from_numpy(draw(N, 4, r, seed=3))
    i = torch.arange(1, N - 1)[None, :, None]
    assert ((plan > 0) & (plan < 2 * r + 4) & ((plan - i).abs() > 1)).all()
    assert all(len(set(row.tolist())) == r for row in plan.flatten(0, 1))
    assert len({str(head.tolist()) for head in plan}) == 4


def test_layers_differ_and_builds_agree():
    one, other = build()[0], build(layer=1)[0]
    assert not torch.equal(one.plan, other.plan)
    torch.manual_seed(5)
    assert torch.equal(BigBird(LayerContext(D, T, causal=False), heads=H, block_size=3, random_blocks=2).plan, one.plan)


@pytest.mark.parametrize("options", [{"block_size": 8}, {"block_size": 4}], ids=str)
def test_few_blocks_are_full_attention(options):
    """9 blocks of 4 are 2r + 5."""
    mixer, x = build(**options)
    assert mixer.plan is None
    full = Attention(LayerContext(width=D, length=T, causal=False), heads=H).double()
    parts = [mixer.query, mixer.key, mixer.value]
    qkv = {f"qkv.{part}": torch.cat([getattr(p, part) for p in parts]) for part in ("weight", "bias")}
    full.load_state_dict(qkv | {"out.weight": mixer.out.weight, "out.bias": mixer.out.bias})
    torch.testing.assert_close(mixer(x)[0], full(x)[0])


def test_padding_leaves_no_trace():
    """Not even NaN; each row gives what it gives alone."""
    mixer, x = build()
    lengths = [T, 10, 0]
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    y = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask)[0]
    assert y.isfinite().all()
    for row, n in enumerate(lengths[:2]):
        torch.testing.assert_close(mixer(x[row : row + 1, :n])[0], y[row : row + 1, :n])


@pytest.mark.parametrize(
    "name", ["padding", "batching", "gradients", "initialisation", "length", "precision", "extremes"]
)
def test_the_contract_holds_for_sparse_models(name):
    """With its defaults the general test sees full attention only."""
    subject = checks.Subject("bigbird", {"block_size": 1, "random_blocks": 1})
    assert all(m.plan is not None for m in subject.build("classify").modules() if isinstance(m, BigBird))
    assert checks.apply(name, subject).status == "passed"


def test_initialisation():
    mixer = BigBird(LayerContext(width=256, length=T, causal=False))
    mixer.reset_parameters(layer=1, depth=4)
    for linear, scale in ((mixer.query, 1), (mixer.key, 1), (mixer.value, 1), (mixer.out, 8**-0.5)):
        assert linear.weight.std().item() == pytest.approx(scale / 16, rel=0.02)
        assert not linear.bias.any()


@pytest.mark.parametrize(
    ("options", "message"), [({"heads": 3}, "does not divide"), ({"block_size": 0}, "0"), ({"random_blocks": 0}, "0")]
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_refuses_causal_long_and_state():
    with pytest.raises(Unsupported):
        BigBird(LayerContext(width=D, length=T))
    mixer, x = build(length=T - 1)
    with pytest.raises(ValueError, match="34 at most"):
        mixer(x)
    with pytest.raises(Unsupported):
        mixer(x, state={})


def test_works_without_data():
    with torch.device("meta"):
        mixer, x = BigBird(LayerContext(width=D, length=T, causal=False), block_size=1), torch.randn(B, T, D)
        mask = torch.ones(B, T, dtype=torch.bool)
    assert mixer.plan.device.type == "meta"
    mixer(x, mask=mask)[0].sum().backward()

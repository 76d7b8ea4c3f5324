"""Griffin's recurrent block: the layer written out step by step, the first step, initialisation, parameter groups."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.rg_lru import BoundedSqrt, RecurrentBlock
from zoo.contract import LayerContext

B, T, D = 3, 13, 8


def build(**options):
    """A float64 mixer, every parameter random around its start, and inputs."""
    torch.manual_seed(0)
    mixer = RecurrentBlock(LayerContext(width=D, length=T), **{"heads": 2, **options}).double()
    for parameter in mixer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def start(mixer):
    return mixer.init_state(B, device="cpu", dtype=torch.float64)


def naive(m, x):
    """The paper's equations, a step at a time, with dense block-diagonal matrices."""
    lru, W = m.rg_lru, m.conv_1d.kernel_size[0]
    Wi, Wa = torch.block_diag(*lru.input_gate_weight), torch.block_diag(*lru.recurrent_gate_weight)
    u = F.pad(m.linear_x(x), (0, 0, W - 1, 0))
    h, outputs = 0.0, []
    for t in range(T):
        c = sum(u[:, t + j] * m.conv_1d.weight[:, 0, j] for j in range(W)) + m.conv_1d.bias
        r = torch.sigmoid(c @ Wa + lru.recurrent_gate_bias.flatten())
        i = torch.sigmoid(c @ Wi + lru.input_gate_bias.flatten())
        a = torch.sigmoid(-lru.recurrent_param) ** (8 * r)  # e^{−8 r softplus(Λ)}
        h = i * c if t == 0 else a * h + (1 - a**2).sqrt() * i * c
        outputs.append(m.linear_out(h * F.gelu(m.linear_y(x[:, t]), approximate="tanh")))
    return torch.stack(outputs, 1), h


@pytest.mark.parametrize("options", [{}, {"heads": 3, "lru_width": 12, "d_conv": 2}, {"d_conv": 1}], ids=str)
def test_equals_the_equations(options):
    mixer, x = build(**options)
    want, last = naive(mixer, x)
    y, state = mixer(x, state=start(mixer))
    torch.testing.assert_close(y, want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state["h"], last, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(want)
    got, wanted = (torch.autograd.grad((out * weights).sum(), list(mixer.parameters())) for out in (mixer(x)[0], want))
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cut", [1, 4])
def test_only_the_first_step_of_a_sequence_enters_unscaled(cut):
    """Also where it comes alone, or behind a call that was all padding."""
    mixer, x = build()
    whole, _ = mixer(x)
    _, state = mixer(x, mask=torch.zeros(B, T, dtype=torch.bool), state=start(mixer))
    assert not state["started"].any()
    first, state = mixer(x[:, :cut], state=state)
    assert state["started"].all()
    rest, _ = mixer(x[:, cut:], state=state)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole)
    restarted, _ = mixer(x[:, cut:], state={**state, "started": torch.zeros(B, dtype=torch.bool)})
    assert (restarted - rest).abs().max() > 1e-3


def test_the_root_is_steep_but_not_infinitely():
    x = torch.tensor([0.0, 1e-8, 0.25], dtype=torch.float64, requires_grad=True)
    y = BoundedSqrt.apply(x)
    y.sum().backward()
    torch.testing.assert_close(y, x.sqrt())
    torch.testing.assert_close(x.grad, torch.tensor([1000.0, 1000.0, 1.0], dtype=torch.float64))


def test_initialisation():
    torch.manual_seed(0)
    mixer = RecurrentBlock(LayerContext(width=128, length=T, depth=8), heads=2, lru_width=256)
    a = torch.exp(-F.softplus(mixer.rg_lru.recurrent_param))
    assert 0.9 <= a.min() < 0.905
    assert 0.998 < a.max() <= 0.9991
    deviations = {
        "linear_x.weight": 128**-0.5,
        "linear_y.weight": 128**-0.5,
        "linear_out.weight": (2 / 8 / 256) ** 0.5,
        "conv_1d.weight": 0.05,
        "rg_lru.input_gate_weight": 128**-0.5,
        "rg_lru.recurrent_gate_weight": 128**-0.5,
    }
    for name, parameter in mixer.named_parameters():
        if name in deviations:
            assert parameter.std().item() == pytest.approx(deviations[name], rel=0.1), name
        elif name != "rg_lru.recurrent_param":
            assert not parameter.any(), name


def test_hints():
    mixer, _ = build()
    decay = {name: hint.decay for name, hint in mixer.param_overrides().items()}
    gates = {"rg_lru.input_gate_weight": True, "rg_lru.recurrent_gate_weight": True}
    assert decay == {**gates, "rg_lru.recurrent_param": False}

"""The mesa layer: conjugate gradients find what the direct solution does; what it is the solution of."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from zoo.ops import flops
from zoo.ops.mesa import chunked, mesa, mesa_naive

from .conftest import assert_near, assert_near_float64, assert_same, differentiated

B, H, K, V = 2, 3, 5, 7


def normal(*shape):
    return torch.randn(B, H, *shape, dtype=torch.float64)


def inputs(T, decay="mild", given=True, K=K):
    torch.manual_seed(T)
    log_decay = {
        "none": torch.zeros(B, H, T).double(),
        "mild": F.logsigmoid(normal(T) + 3),
        "strong": -30 * normal(T).exp(),
    }
    q, k = (F.normalize(normal(T, K), dim=-1) for _ in range(2))
    G = normal(K, K)
    state = (G @ G.mT / K, normal(K, V)) if given else ()
    return q, k, normal(T, V), normal(T).sigmoid(), log_decay[decay], 0.3 + torch.rand(H, K).double(), *state


def flat(op, **options):
    """A form whose state is one of its inputs and outputs."""

    def run(*x):
        o, state = op(*x[:6], x[6:] or None, **options)
        return o, *state

    return run


@pytest.mark.parametrize("T", [1, 31, 32, 75])
@pytest.mark.parametrize("given", [False, True], ids=["fresh", "resumed"])
@pytest.mark.parametrize("decay", ["none", "mild", "strong"])
@pytest.mark.parametrize("chunk", [8, 32])
def test_the_solver_equals_the_naive_form(monkeypatch, T, given, decay, chunk):
    monkeypatch.setattr(chunked, "CHUNK", chunk)
    assert_same(flat(mesa), flat(mesa_naive), *inputs(T, decay, given), tolerance=1e-9)


def test_outputs_are_those_of_the_least_squares(form):
    """W = (G + diag λ)⁻¹ S leaves no slope of the weighed squares of all pairs so far."""
    q, k, v, beta, log_decay, ridge = inputs(20, given=False)
    o, _ = mesa(q, k, v, beta, log_decay, ridge)
    weight = beta * (log_decay.flip(2).cumsum(2).flip(2) - log_decay).exp()
    W = torch.zeros(B, H, K, V, dtype=torch.float64, requires_grad=True)
    squares = (weight[..., None] * (k @ W - v).square()).sum() + (ridge[..., None] * W.square()).sum()
    (slope,) = torch.autograd.grad(squares / 2, W, create_graph=True)
    at_zero = slope.detach()
    hessian = torch.stack(
        [torch.autograd.grad(slope[..., i, 0].sum(), W, retain_graph=True)[0][..., 0] for i in range(K)], -1
    )
    found = -torch.linalg.solve(hessian, at_zero)
    torch.testing.assert_close(o[:, :, -1], (q[:, :, -1:] @ found).squeeze(2))


def test_few_iterations_are_not_enough_and_enough_end_early():
    """As many as there are different eigenvalues are exact but for rounding, and the solver sees that."""
    given = inputs(40, "none", K=12)
    want, few, enough = (flat(mesa, iterations=n)(*given)[0] for n in (1000, 2, 30))
    assert (few - want).abs().max() > 1e-3
    torch.testing.assert_close(enough, want, rtol=1e-10, atol=1e-10)
    calls = []
    A = torch.diag(torch.arange(1.0, 4))
    x = chunked.conjugate_gradients(lambda p: calls.append(1) or p @ A, torch.ones(1, 1, 2, 3), 30)
    torch.testing.assert_close(x @ A, torch.ones(1, 1, 2, 3))
    assert len(calls) in (3, 4)  # three different eigenvalues, and perhaps rounding


def test_empty_steps_keep_the_state(form):
    q, k, v, _, _, ridge, G, S = inputs(20)
    zero = torch.zeros(B, H, 20, dtype=torch.float64)
    _, after = mesa(q, k, v, zero, zero, ridge, (G, S))
    torch.testing.assert_close(after, (G, S), rtol=0, atol=0)


def test_total_forgetting_is_finite_and_exact(form):
    given = inputs(40)
    given[4][:, :, 5] = -torch.inf
    assert_same(flat(mesa), flat(mesa_naive), *given, tolerance=1e-9)


def test_float32_and_bfloat16_stay_close_to_float64(form):
    """Of a head of a usual width, after more steps than it has channels; matmuls stay in float32 under autocast."""
    given = [x.float() for x in inputs(100, K=32)]
    assert_near_float64(flat(mesa), flat(mesa_naive), *given, limit=1e-4)
    narrow = [x.bfloat16() if x.ndim == 4 and x.shape[2] == 100 else x for x in given]
    with torch.autocast("cpu", torch.bfloat16):
        o, G, S = flat(mesa)(*narrow)
    assert (o.dtype, G.dtype, S.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    exact = flat(mesa_naive)(*(x.double() for x in narrow))
    assert_near((o, G, S), exact, 0.01)


def test_no_iteration_is_refused():
    with pytest.raises(ValueError, match="mesa: iterations is 0, expected 1 at least"):
        mesa(*inputs(3, given=False), iterations=0)


def test_shapes_without_data():
    with torch.device("meta"):
        q, v, beta, ridge = torch.empty(B, H, 9, K), torch.empty(B, H, 9, V), torch.empty(B, H, 9), torch.empty(H, K)
    o, (G, S) = mesa(q, q, v, beta, beta, ridge)
    assert (o.shape, G.shape, S.shape) == ((B, H, 9, V), (B, H, K, K), (B, H, K, V))


def test_no_gradient_is_asked_of_constants():
    """Outputs of inputs without gradients have none, and one input alone can have them."""
    given = inputs(9)
    assert not flat(mesa)(*given)[0].requires_grad
    alone = lambda form: differentiated(lambda k: flat(form)(given[0], k, *given[2:])[0], given[1])  # noqa: E731
    torch.testing.assert_close(alone(mesa), alone(mesa_naive))


def test_flops_do_not_depend_on_when_the_solver_ends():
    """A large ridge ends it at once; a step is counted as if it did not."""
    counts = []
    for ridge in (1e-3, 1e9):
        with FlopCounterMode(display=False) as counter, flops.Counter() as own:
            mesa(*inputs(20, given=False)[:-1], torch.full((H, K), ridge).double())
        counts.append(counter.get_total_flops() + own.total)
    assert counts[0] == counts[1]

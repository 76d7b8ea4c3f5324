"""Official CUDA kernels serve where they equal the naive form, and nowhere else.

The packages are stood in for by functions with their signatures, defaults and layouts around our naive forms, on a CPU
that passes for a GPU. Where there is a GPU and the package, the kernels themselves are compared.
"""

import dataclasses
import sys
import types
import warnings
from unittest import mock

import pytest
import torch

from zoo.ops import flops
from zoo.ops import official as kernels
from zoo.ops.delta_rule import delta_rule, delta_rule_naive, dplr, dplr_naive
from zoo.ops.delta_rule import official as delta
from zoo.ops.kernel_log import record_kernels
from zoo.ops.linear_attention import linear_attention, recurrent
from zoo.ops.linear_attention import official as linear
from zoo.ops.selective_scan import official as scan
from zoo.ops.selective_scan import selective_scan, selective_scan_naive

B, T, H, K, V, N = 2, 19, 2, 4, 3, 5
SCAN = scan.KERNEL


class Fake:
    """One function of a stand-in for a package: what it was given, and a fault it may have."""

    def __init__(self):
        self.calls, self.fault = [], lambda inputs, results: results

    def answer(self, naive, inputs, state, scale, final):
        """Inputs and results have time before heads, as fla's."""
        self.calls.append([x.dtype for x in inputs])
        first, *rest = [x.transpose(1, 2) for x in inputs if x.ndim > 2] + [x for x in inputs if x.ndim == 2]
        scale = first.shape[-1] ** -0.5 if scale is None else scale
        o, S = naive(first * scale, *rest, state=state)
        o, S = self.fault(inputs, (o.transpose(1, 2), S))
        return o, S if final else None


@pytest.fixture
def fake(monkeypatch):
    """fla and mamba_ssm are installed, the CPU is a GPU, and nothing has been checked yet."""
    it = Fake()

    def chunk_linear_attn(q, k, v, scale=None, initial_state=None, output_final_state=False, normalize=True):
        assert not normalize, "we divide by nothing"
        return it.answer(recurrent, [q, k, v], initial_state, scale, output_final_state)

    def chunk_gla(q, k, v, g, scale=None, initial_state=None, output_final_state=False):
        assert q.shape == k.shape
        assert g.shape == k.shape[: g.ndim]
        return it.answer(recurrent, [q, k, v, g], initial_state, scale, output_final_state)

    def chunk_rwkv6(r, k, v, w, u, scale=None, initial_state=None, output_final_state=False):
        def bonus(q, k, v, w, u, state):
            return recurrent(q, k, v, w, state, u)

        return it.answer(bonus, [r, k, v, w, u], initial_state, scale, output_final_state)

    def chunk_delta_rule(q, k, v, beta, scale=None, initial_state=None, output_final_state=False):
        assert q.dtype != torch.float32
        return it.answer(delta_rule_naive, [q, k, v, beta], initial_state, scale, output_final_state)

    def chunk_gated_delta_rule(q, k, v, g, beta, scale=None, initial_state=None, output_final_state=False):
        return it.answer(_swapped, [q, k, v, g, beta], initial_state, scale, output_final_state)

    def chunk_dplr_delta_rule(q, k, v, a, b, gk, scale=None, initial_state=None, output_final_state=False):
        return it.answer(dplr_naive, [q, k, v, a, b, gk], initial_state, scale, output_final_state)

    def selective_scan_fn(
        u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=0
    ):
        assert u.dtype == delta.dtype == B.dtype == C.dtype
        assert A.dtype == torch.float32
        it.calls.append([u.dtype])
        y, h = selective_scan_naive(u.mT, delta.mT, A, B.mT, C.mT, D)
        y, h = it.fault([u.mT, delta.mT], (y, h))
        return (y.mT, h.detach()) if return_last_state else y.mT  # "the gradient of the last state is not considered"

    for module, function in {
        "fla.ops.linear_attn": chunk_linear_attn,
        "fla.ops.gla": chunk_gla,
        "fla.ops.rwkv6": chunk_rwkv6,
        "fla.ops.delta_rule": chunk_delta_rule,
        "fla.ops.gated_delta_rule": chunk_gated_delta_rule,
        "fla.ops.generalized_delta_rule": chunk_dplr_delta_rule,
        "mamba_ssm.ops.selective_scan_interface": selective_scan_fn,
    }.items():
        monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{function.__name__: function}))
    simple = types.SimpleNamespace(chunk_simple_gla=chunk_gla)
    monkeypatch.setitem(sys.modules, "fla.ops.simple_gla", simple)
    monkeypatch.setattr(kernels, "installed", lambda package: True)
    monkeypatch.setattr(kernels, "on_gpu", lambda x: True)
    monkeypatch.setattr(scan, "KERNEL", dataclasses.replace(SCAN, lengths=(72,)))  # the naive form takes its time
    for name in ("_errors", "refused"):
        monkeypatch.setattr(kernels, name, {})
    with record_kernels() as it.log:
        yield it


def _swapped(q, k, v, g, beta, state):
    return delta_rule_naive(q, k, v, beta, g, state)


def inputs(kernel, state):
    """As the check draws them, in another length and float32; `state` or none, and no argument of other kinds."""
    random = torch.Generator().manual_seed(1)
    if kernel is SCAN:
        return [x.float() for x in kernel.draw(random, T, N)]
    G = (1,) if kernel in linear.KERNELS else ()  # one head of q and k for two of v
    drawn = [x.float() for x in kernel.draw(random, T, *G, H, K, V)]
    if kernel in linear.KERNELS and kernel is not linear.BONUS:
        drawn[-1] = None
    if kernel in (linear.PLAIN, delta.PLAIN):
        drawn[-2 if kernel is delta.PLAIN else 3] = None
    if not state:
        drawn[4 if kernel in linear.KERNELS else -1] = None
    return drawn


def served(kernel, *args):
    """Through the function that the op asks."""
    op = {"selective_scan": scan.selective_scan, "linear_attention": linear.linear_attention}
    op |= {"delta_rule": delta.delta_rule, "dplr": delta.dplr}
    return op[kernel.op](*args, *([None] if kernel is SCAN else []))


ALL = [*linear.KERNELS, *delta.KERNELS, SCAN]
KERNELS = pytest.mark.parametrize("kernel", ALL, ids=lambda kernel: kernel.form.replace(" ", "_"))


def assert_equal(got, want, leaves, exact, tolerance):
    """Outputs, state and gradients, by relative error."""
    weights = [torch.randn_like(x) for x in want]
    pairs = list(zip(got, want, strict=True))
    leaves, exact = ([x for x in group if x is not None] for group in (leaves, exact))
    gradients = [
        torch.autograd.grad(results, inputs, [w.to(y) for w, y in zip(weights, results, strict=True)])
        for results, inputs in ((got, leaves), (want, exact))
    ]
    for x, y in [*pairs, *zip(*gradients, strict=True)]:
        assert x.shape == y.shape
        assert (x.cpu().double() - y.double()).norm() < tolerance * y.norm()


@KERNELS
@pytest.mark.parametrize("state", [False, True], ids=["fresh", "resumed"])
def test_an_equal_kernel_serves(fake, kernel, state):
    drawn = inputs(kernel, state)
    dtype = torch.bfloat16 if kernel is delta.PLAIN else torch.float32
    leaves = [None if x is None else x.to(dtype).requires_grad_() for x in drawn]
    exact = [None if x is None else x.detach().double().requires_grad_() for x in leaves]
    got = served(kernel, *leaves)
    assert got is not None, kernels.refused
    assert fake.log == {kernel.op: kernel.form}
    assert got[0].dtype == dtype
    assert got[1].dtype == torch.float32
    assert_equal(got, kernel.naive(*exact), leaves, exact, kernels.tolerance(dtype))


FAULTS = {
    "a factor": lambda inputs, results: (1.1 * results[0], results[1]),
    "a wrong state": lambda inputs, results: (results[0], 1.1 * results[1]),
    "a wrong gradient": lambda inputs, results: (results[0] + 0.1 * (inputs[1] - inputs[1].detach()).sum(), results[1]),
    "one gradient less": lambda inputs, results: tuple(x.detach() for x in results),
    "wrong behind the first chunk": lambda inputs, results: (_behind(results[0], 64), results[1]),
    "NaN": lambda inputs, results: (results[0] / 0, results[1]),
}


def _behind(y, t):
    return torch.cat([y[:, :t], 1.1 * y[:, t:]], dim=1)


@KERNELS
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fake, kernel, fault):
    fake.fault = FAULTS[fault]
    args = [x if x is None else x.bfloat16() for x in inputs(kernel, True)]
    with pytest.warns(UserWarning, match=kernel.form):
        assert served(kernel, *args) is None
    assert kernel.form not in fake.log.values()
    assert len(kernels.refused) == 1
    with warnings.catch_warnings(action="error"):
        assert served(kernel, *args) is None, "said once"


def test_a_fault_behind_the_scans_first_block_is_found(fake, monkeypatch):
    monkeypatch.setattr(scan, "KERNEL", SCAN)
    fake.fault = lambda inputs, results: (_behind(results[0], 2048), results[1])
    with pytest.warns(UserWarning, match="relative error"):
        assert served(SCAN, *inputs(SCAN, False)) is None


def test_an_exception_while_checking_is_a_refusal(fake):
    def fail(inputs, results):
        raise RuntimeError("out of shared memory")

    fake.fault = fail
    with pytest.warns(UserWarning, match="out of shared memory"):
        assert served(linear.PER_HEAD, *inputs(linear.PER_HEAD, True)) is None
    assert "RuntimeError: out of shared memory" in kernels.refused.popitem()[1]


def test_a_package_that_is_not_installed_is_no_news(fake, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(kernels, "on_gpu", lambda x: True)
    monkeypatch.setattr(kernels, "installed", lambda package: False)
    with warnings.catch_warnings(action="error"):
        assert all(served(kernel, *inputs(kernel, True)) is None for kernel in ALL)
    assert not kernels.refused


def test_whether_a_package_is_installed_is_found_without_importing_it():
    before = set(sys.modules)
    kernels.installed.cache_clear()
    assert not kernels.installed("no_such_package")
    assert kernels.installed("wave")
    assert set(sys.modules) == before


def test_nothing_serves_off_the_gpu(fake, monkeypatch):
    monkeypatch.setattr(kernels, "on_gpu", lambda x: x.ndim != 4 or x.shape[-1] != V)  # v and the state elsewhere
    assert served(linear.PER_HEAD, *inputs(linear.PER_HEAD, True)) is None
    assert not fake.calls


def test_switched_off(fake, monkeypatch):
    monkeypatch.setenv("ZOOBENCH_OFFICIAL", "0")
    assert served(linear.PER_HEAD, *inputs(linear.PER_HEAD, True)) is None
    assert not fake.calls


def test_not_where_torch_is_to_be_deterministic(fake):
    with mock.patch.object(torch, "are_deterministic_algorithms_enabled", return_value=True):
        assert served(SCAN, *inputs(SCAN, False)) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_are_ours(fake, dtype):
    for kernel in ALL:
        assert served(kernel, *[x if x is None else x.to(dtype) for x in inputs(kernel, True)]) is None
    assert served(delta.PLAIN, *inputs(delta.PLAIN, True)) is None  # float32: it has none
    assert not kernels.refused


def test_what_no_kernel_does_is_ours(fake):
    u, step, A, B_, C, D = inputs(SCAN, False)
    assert scan.selective_scan(u, step, A, B_, C, D, torch.zeros(B, *A.shape)) is None
    q, k, v, log_decay, state, bonus = inputs(linear.BONUS, True)
    assert linear.linear_attention(q, k, v, log_decay[..., 0], state, bonus) is None
    assert linear.linear_attention(q, k, v, None, state, bonus) is None


def test_each_kind_is_checked_once(fake):
    args = inputs(linear.PER_CHANNEL, True)
    served(linear.PER_CHANNEL, *args)
    assert len(fake.calls) == 2  # the check and the work
    served(linear.PER_CHANNEL, *args)
    assert len(fake.calls) == 3
    served(linear.PER_CHANNEL, *args[:4], None, None)
    assert len(fake.calls) == 5  # without a state
    served(linear.PER_CHANNEL, args[0].bfloat16(), args[1].bfloat16(), args[2].bfloat16(), *args[3:])
    assert len(fake.calls) == 7


def test_matmuls_follow_autocast_and_decays_do_not(fake):
    args = inputs(linear.PER_HEAD, True)
    with torch.autocast("cpu", torch.bfloat16):
        o, S = served(linear.PER_HEAD, *args)
    assert fake.calls[-1] == [torch.bfloat16] * 3 + [torch.float32]
    assert o.dtype == S.dtype == torch.float32


def test_tf32_counts_as_equal_only_where_torch_may_use_it(fake):
    fake.fault = lambda inputs, results: (1.001 * results[0], 1.001 * results[1])
    args = inputs(linear.PER_HEAD, True)
    with mock.patch.object(torch, "get_float32_matmul_precision", return_value="high"):
        assert served(linear.PER_HEAD, *args) is not None
    with mock.patch.object(torch, "get_float32_matmul_precision", return_value="highest"):
        assert served(linear.PER_HEAD, *args) is None


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_check_leaves_no_trace(fake, context):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with context():
        assert served(linear.PER_HEAD, *inputs(linear.PER_HEAD, True)) is not None
    assert torch.equal(torch.get_rng_state(), before)


def test_flops_are_counted_on_our_form(fake):
    args = inputs(linear.PER_HEAD, True)
    with flops.Counter():
        assert served(linear.PER_HEAD, *args) is None
    assert len(fake.calls) == 1  # the check is made all the same
    assert served(linear.PER_HEAD, *args) is not None
    assert not kernels.refused


def test_one_decay_for_all_rows(fake):
    q, k, v, log_decay, state, _ = inputs(linear.PER_HEAD, True)
    leaf = log_decay[1:].clone().requires_grad_()
    (o, S), (want, S_) = served(linear.PER_HEAD, q, k, v, leaf, state, None), recurrent(q, k, v, leaf, state)
    torch.testing.assert_close((o, S), (want, S_))
    gradients = [torch.autograd.grad(y.square().sum(), leaf)[0] for y in (o, want)]
    torch.testing.assert_close(*gradients)


def test_report(monkeypatch):
    monkeypatch.setattr(
        kernels, "refused", {"dplr by fla chunk_dplr_delta_rule (float32, sizes (2, 4, 3))": "a reason"}
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    names = {(kernel.op, kernel.form) for kernel in ALL}
    rows = {row[:2]: row[2] for row in kernels.report()}
    assert rows.keys() > names
    assert {rows[name] for name in names} == {"no GPU"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(kernels, "installed", lambda package: package != "mamba_ssm")
    rows = {form: status for _, form, status in kernels.report()}
    assert rows["mamba_ssm selective_scan_fn"] == "not installed; pip install mamba-ssm"
    assert rows["fla chunk_gla"] == "used on CUDA where equal"
    assert rows["fla chunk_dplr_delta_rule"] == "refused: a reason"


def on_a_gpu(kernel):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if not kernels.installed(kernel.package):
        pytest.skip(f"{kernel.install} is not installed")


@KERNELS
@pytest.mark.parametrize("state", [False, True], ids=["fresh", "resumed"])
def test_the_kernel_itself_on_a_gpu(kernel, state):
    """In bfloat16, which all of them have; T is three chunks and a rest."""
    on_a_gpu(kernel)
    random = torch.Generator().manual_seed(2)
    sizes = (16,) if kernel is SCAN else (2, 64, 48)
    drawn = kernel.draw(random, 205, *([1] if kernel in linear.KERNELS else []), *sizes)
    args = [None if x is None else d.bfloat16() for x, d in zip(inputs(kernel, state), drawn, strict=True)]
    leaves = [None if x is None else x.cuda().requires_grad_() for x in args]
    exact = [None if x is None else x.double().requires_grad_() for x in args]
    got = served(kernel, *leaves)
    assert got is not None, kernels.refused
    assert_equal(got, kernel.naive(*exact), leaves, exact, kernels.tolerance(torch.bfloat16))


def through_the_op(kernel, *args):
    if kernel.op == "linear_attention":
        return linear_attention(*args[:5], bonus=args[5])
    return {"selective_scan": selective_scan, "delta_rule": delta_rule, "dplr": dplr}[kernel.op](*args)


@KERNELS
def test_the_op_asks_for_the_kernel_and_runs_its_own_form_where_that_is_refused(fake, kernel):
    args = [None if x is None else x.bfloat16() for x in inputs(kernel, True)]
    by_kernel = through_the_op(kernel, *args)
    assert fake.log.pop(kernel.op) == kernel.form
    kernels._errors.clear()
    fake.fault = FAULTS["a factor"]
    with pytest.warns(UserWarning, match=kernel.form):
        own = through_the_op(kernel, *args)
    assert kernel.form not in fake.log[kernel.op]
    for x, y in zip(by_kernel, own, strict=True):
        assert (x - y).norm() < 2e-2 * y.norm()

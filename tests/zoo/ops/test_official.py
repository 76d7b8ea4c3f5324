"""Official CUDA kernels compute where they equal the naive form, and nowhere else.

The packages are stood in for by functions with their signatures, defaults and layouts around our naive forms, on a CPU
that passes for a GPU. Where there is a GPU and the package, the kernels themselves are compared.
"""

import dataclasses
import sys
import types
import warnings
from contextlib import nullcontext

import pytest
import torch

from zoo.ops import check_official, flops
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
    """Stand-ins for packages: what they were given, and a fault they may have."""

    def __init__(self):
        self.calls, self.fault = [], lambda inputs, results: results

    def fla(self, name):
        """A function of fla: inputs and results have time before heads, and are scaled by default."""
        arguments, naive = FLA[name]

        def function(scale=None, initial_state=None, output_final_state=False, **given):
            assert not given.pop("normalize", name == "chunk_linear_attn"), "we divide by nothing"
            inputs = [given.pop(argument) for argument in arguments.split()]
            assert not given
            assert name != "chunk_delta_rule" or inputs[0].dtype != torch.float32
            self.calls.append([x.dtype for x in inputs])
            ours = {
                OURS.get(n, n): x if n == "u" else x.transpose(1, 2)
                for n, x in zip(arguments.split(), inputs, strict=True)
            }
            ours["q"] = ours["q"] * (ours["q"].shape[-1] ** -0.5 if scale is None else scale)
            o, S = naive(**ours, state=initial_state)
            o, S = self.fault(inputs, (o.transpose(1, 2), S))
            return o, S if output_final_state else None

        return function

    def selective_scan_fn(
        self, u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=0
    ):
        assert u.dtype == delta.dtype == B.dtype == C.dtype
        assert A.dtype == torch.float32
        self.calls.append([u.dtype])
        y, h = self.fault([u.mT, delta.mT], selective_scan_naive(u.mT, delta.mT, A, B.mT, C.mT, D))
        return (y.mT, h.detach()) if return_last_state else y.mT  # "the gradient of the last state is not considered"


FLA = {
    "chunk_linear_attn": ("q k v", recurrent),
    "chunk_simple_gla": ("q k v g", recurrent),
    "chunk_gla": ("q k v g", recurrent),
    "chunk_rwkv6": ("r k v w u", recurrent),
    "chunk_delta_rule": ("q k v beta", delta_rule_naive),
    "chunk_gated_delta_rule": ("q k v g beta", delta_rule_naive),
    "chunk_dplr_delta_rule": ("q k v a b gk", dplr_naive),
}
"""The arguments of fla's functions, and what they compute."""
OURS = {"r": "q", "w": "log_decay", "g": "log_decay", "gk": "log_decay", "u": "bonus"}
MODULES = ["linear_attn", "simple_gla", "gla", "rwkv6", "delta_rule", "gated_delta_rule", "generalized_delta_rule"]


@pytest.fixture
def fake(monkeypatch):
    """fla and mamba_ssm are installed, the CPU is a GPU, and nothing has been checked yet: by this process, in which
    the fakes are."""
    it = Fake()
    packages = {f"fla.ops.{module}": {name: it.fla(name)} for module, name in zip(MODULES, FLA, strict=True)}
    packages["mamba_ssm.ops.selective_scan_interface"] = {"selective_scan_fn": it.selective_scan_fn}
    for module, functions in packages.items():
        monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**functions))
    monkeypatch.setattr(kernels, "installed", lambda package: True)
    monkeypatch.setattr(kernels, "on_gpu", lambda x: True)
    monkeypatch.setattr(scan, "KERNEL", dataclasses.replace(SCAN, lengths=(72,)))  # the naive form takes its time
    monkeypatch.setattr(kernels, "refused", {})
    monkeypatch.setattr(check_official, "compare", compare_here)
    kernels._equals_naive.cache_clear()
    with record_kernels() as it.log:
        yield it
    kernels._equals_naive.cache_clear()


def compare_here(*case):
    try:
        return {"errors": kernels.errors(*case)}
    except Exception as error:
        return {"reason": f"{type(error).__name__}: {error}"}


def inputs(kernel, state):
    """As the check draws them, in another length and float32; `state` or none, and no argument of other kinds."""
    random = torch.Generator().manual_seed(1)
    if kernel is SCAN:
        return [x.float() for x in kernel.draw(random, T, N)]
    G = 1 if kernel in linear.KERNELS else H  # one head of q and k for two of v
    drawn = [x.float() for x in kernel.draw(random, T, G, H, K, V)]
    for place in kernel.unused:
        drawn[place] = None
    if not state:
        drawn[4 if kernel in linear.KERNELS else -1] = None
    return drawn


def computed(kernel, *args):
    """Through the function that the op asks."""
    op = {"selective_scan": scan.selective_scan, "linear_attention": linear.linear_attention}
    op |= {"delta_rule": delta.delta_rule, "dplr": delta.dplr}
    return op[kernel.op](*args, *([None] if kernel is SCAN else []))


def per_head():
    return computed(linear.PER_HEAD, *inputs(linear.PER_HEAD, True))


ALL = [*linear.KERNELS, *delta.KERNELS, SCAN]
STATES = pytest.mark.parametrize("state", [False, True], ids=["fresh", "resumed"])
KERNELS = pytest.mark.parametrize("kernel", ALL, ids=lambda kernel: kernel.form.replace(" ", "_"))


def check_kernel(kernel, args, dtype, device="cpu"):
    """It computes, and outputs, state and gradients equal the naive form's."""
    leaves = [None if x is None else x.to(device, dtype).requires_grad_() for x in args]
    exact = [None if x is None else x.detach().to(dtype).double().requires_grad_() for x in args]
    got, want = computed(kernel, *leaves), kernel.naive(*exact)
    assert got is not None, kernels.refused
    assert [x.dtype for x in got] == [dtype, torch.float32]
    weights = [torch.randn_like(x) for x in want]
    gradients = [
        torch.autograd.grad(y, [x for x in x if x is not None], [w.to(z) for w, z in zip(weights, y, strict=True)])
        for y, x in ((got, leaves), (want, exact))
    ]
    for x, y in [*zip(got, want, strict=True), *zip(*gradients, strict=True)]:
        assert x.shape == y.shape
        assert (x.cpu().double() - y.double()).norm() < kernels.tolerance(dtype) * y.norm()


@KERNELS
@STATES
def test_an_equal_kernel_computes(fake, kernel, state):
    check_kernel(kernel, inputs(kernel, state), torch.bfloat16 if kernel is delta.PLAIN else torch.float32)
    assert fake.log == {kernel.op: kernel.form}


@pytest.mark.cuda
@KERNELS
@STATES
def test_the_kernel_itself_on_a_gpu(kernel, state):
    """In bfloat16, which all of them have; T is three chunks and a rest."""
    if not kernels.installed(kernel.package):
        pytest.skip(f"needs {kernel.package}: {kernel.install}")
    sizes = (16,) if kernel is SCAN else (1 if kernel in linear.KERNELS else 2, 2, 64, 48)
    drawn = kernel.draw(torch.Generator().manual_seed(2), 205, *sizes)
    args = [None if x is None else d for x, d in zip(inputs(kernel, state), drawn, strict=True)]
    check_kernel(kernel, args, torch.bfloat16, "cuda")


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
        assert computed(kernel, *args) is None
    assert kernel.form not in fake.log.values()
    assert len(kernels.refused) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert computed(kernel, *args) is None, "said once"


def test_a_fault_behind_the_scans_first_block_is_found(fake, monkeypatch):
    monkeypatch.setattr(scan, "KERNEL", SCAN)
    fake.fault = lambda inputs, results: (_behind(results[0], 2048), results[1])
    with pytest.warns(UserWarning, match="relative error"):
        assert computed(SCAN, *inputs(SCAN, False)) is None


def test_an_exception_while_checking_is_a_refusal(fake):
    fake.fault = lambda inputs, results: 1 / 0
    with pytest.warns(UserWarning, match="division by zero"):
        assert per_head() is None
    assert "ZeroDivisionError: division by zero" in kernels.refused.popitem()[1]


def test_a_package_that_is_not_installed_is_no_news(fake, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(kernels, "on_gpu", lambda x: True)
    monkeypatch.setattr(kernels, "installed", lambda package: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(computed(kernel, *inputs(kernel, True)) is None for kernel in ALL)
    assert not kernels.refused


def test_whether_a_package_is_installed_is_found_without_importing_it():
    before = set(sys.modules)
    kernels.installed.cache_clear()
    assert not kernels.installed("no_such_package")
    assert kernels.installed("wave")
    assert set(sys.modules) == before


@pytest.mark.parametrize("why", ["off the GPU", "switched off", "deterministic"])
def test_where_no_kernel_computes(fake, monkeypatch, why):
    if why == "off the GPU":
        monkeypatch.setattr(kernels, "on_gpu", lambda x: x.ndim != 4 or x.shape[-1] != V)  # v and the state elsewhere
    elif why == "switched off":
        monkeypatch.setenv("ZOOBENCH_OFFICIAL", "0")
    else:
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert per_head() is None
    assert not fake.calls


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_are_ours(fake, dtype):
    for kernel in ALL:
        assert computed(kernel, *[x if x is None else x.to(dtype) for x in inputs(kernel, True)]) is None
    assert computed(delta.PLAIN, *inputs(delta.PLAIN, True)) is None  # float32: it has none
    assert not kernels.refused


def test_what_no_kernel_does_is_ours(fake):
    u, step, A, B_, C, D = inputs(SCAN, False)
    assert scan.selective_scan(u, step, A, B_, C, D, torch.zeros(B, *A.shape)) is None
    q, k, v, log_decay, state, bonus = inputs(linear.BONUS, True)
    assert linear.linear_attention(q, k, v, log_decay[..., 0], state, bonus) is None
    assert linear.linear_attention(q, k, v, None, state, bonus) is None


def test_each_kind_is_checked_once(fake):
    args = inputs(linear.PER_CHANNEL, True)
    computed(linear.PER_CHANNEL, *args)
    assert len(fake.calls) == 2  # the check and the work
    computed(linear.PER_CHANNEL, *args)
    assert len(fake.calls) == 3
    computed(linear.PER_CHANNEL, *args[:4], None, None)
    assert len(fake.calls) == 5  # without a state
    computed(linear.PER_CHANNEL, args[0].bfloat16(), args[1].bfloat16(), args[2].bfloat16(), *args[3:])
    assert len(fake.calls) == 7


def test_matmuls_follow_autocast_and_decays_do_not(fake):
    with torch.autocast("cpu", torch.bfloat16):
        o, S = per_head()
    assert fake.calls[-1] == [torch.bfloat16] * 3 + [torch.float32]
    assert o.dtype == S.dtype == torch.float32


def test_tf32_counts_as_equal_only_where_torch_may_use_it(fake, monkeypatch):
    fake.fault = lambda inputs, results: (1.001 * results[0], 1.001 * results[1])
    for precision, equal in (("high", True), ("highest", False)):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda precision=precision: precision)
        with nullcontext() if equal else pytest.warns(UserWarning, match="relative error"):
            assert (per_head() is not None) == equal


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_check_leaves_no_trace(fake, context):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with context():
        assert per_head() is not None
    assert torch.equal(torch.get_rng_state(), before)


def test_flops_are_counted_on_our_form(fake):
    with flops.Counter():
        assert per_head() is None
    assert len(fake.calls) == 1  # the check is made all the same
    assert per_head() is not None
    assert not kernels.refused


def test_one_decay_for_all_rows(fake):
    q, k, v, log_decay, state, _ = inputs(linear.PER_HEAD, True)
    leaf = log_decay[1:].clone().requires_grad_()
    (o, S), (want, S_) = computed(linear.PER_HEAD, q, k, v, leaf, state, None), recurrent(q, k, v, leaf, state)
    torch.testing.assert_close((o, S), (want, S_))
    gradients = [torch.autograd.grad(y.square().sum(), leaf)[0] for y in (o, want)]
    torch.testing.assert_close(*gradients)


def test_report(monkeypatch):
    monkeypatch.setattr(kernels, "refused", {"dplr by fla chunk_dplr_delta_rule (float32, …)": "a reason"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    names = {(kernel.op, kernel.form) for kernel in ALL}
    rows = {row[:2]: row[2] for row in kernels.report()}
    assert rows.keys() > names
    assert {rows[name] for name in names} == {"no GPU"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(kernels, "installed", lambda package: package != "mamba_ssm")
    rows = {form: status for _, form, status in kernels.report()}
    assert rows["mamba_ssm selective_scan_fn"] == f"not installed; {SCAN.install}"
    assert rows["fla chunk_gla"] == "used on CUDA where equal"
    assert rows["fla chunk_dplr_delta_rule"] == "refused: a reason"


def through_the_op(kernel, *args):
    if kernel.op == "linear_attention":
        return linear_attention(*args[:5], bonus=args[5])
    return {"selective_scan": selective_scan, "delta_rule": delta_rule, "dplr": dplr}[kernel.op](*args)


@KERNELS
def test_the_op_asks_for_the_kernel_and_runs_its_own_form_where_that_is_refused(fake, kernel):
    args = [None if x is None else x.bfloat16() for x in inputs(kernel, True)]
    by_kernel = through_the_op(kernel, *args)
    assert fake.log.pop(kernel.op) == kernel.form
    kernels._equals_naive.cache_clear()
    fake.fault = FAULTS["a factor"]
    with pytest.warns(UserWarning, match=kernel.form):
        own = through_the_op(kernel, *args)
    assert kernel.form not in fake.log[kernel.op]
    for x, y in zip(by_kernel, own, strict=True):
        assert (x - y).norm() < 2e-2 * y.norm()


PACKAGE = """
import ctypes, os, torch
from zoo.ops.linear_attention import recurrent

def chunk_simple_gla(q, k, v, g, initial_state, scale, output_final_state):
    with open(os.environ["CALLS"], "a") as calls:
        calls.write(f"{q.dtype}\\n")
    if os.environ["FAULT"] == "crash":
        ctypes.string_at(0)
    o, S = recurrent(*(x.transpose(1, 2) for x in (q, k, v, g)), initial_state)
    return o.transpose(1, 2), S
"""


@pytest.mark.parametrize("fault", ["crash", "none"])
def test_a_check_in_its_own_process_outlives_a_crash_and_is_made_once(tmp_path, monkeypatch, fault):
    (folder := tmp_path / "fla" / "ops").mkdir(parents=True)
    for file, text in {"../__init__.py": "", "__init__.py": "", "simple_gla.py": PACKAGE}.items():
        (folder / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in {"ZOOBENCH_CACHE": tmp_path / "cache", "CALLS": tmp_path / "calls", "FAULT": fault}.items():
        monkeypatch.setenv(name, str(value))
    case = linear.PER_HEAD, (1, 2, 4, 3), (torch.float32,) * 5 + (None,), torch.device("cpu")
    with torch.autocast("cpu", torch.bfloat16):
        first, again = (check_official.compare(*case) for _ in range(2))
    assert (tmp_path / "calls").read_text() == "torch.bfloat16\n"
    assert first == again
    if fault == "crash":
        assert "SIGSEGV" in first["reason"]
    else:
        assert 0 < max(first["errors"].values()) < 2e-2


def test_what_may_pass_is_not_kept(tmp_path, monkeypatch):
    answers = [{"reason": "out of memory"}, {"errors": {"output": float("inf")}}]
    monkeypatch.setenv("ZOOBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(check_official, "_in_own_process", lambda case: answers.pop(0))
    case = linear.PER_HEAD, (1, 2, 4, 3), (torch.float32,) * 5 + (None,), torch.device("cpu")
    assert check_official.compare(*case) == {"reason": "out of memory"}
    assert check_official.compare(*case) == check_official.compare(*case) == {"errors": {"output": float("inf")}}
    (tmp_path / "home").write_text("no folder")
    monkeypatch.setenv("ZOOBENCH_CACHE", str(tmp_path / "home"))
    answers.append({"reason": "where nothing can be written, nothing is kept"})
    assert check_official.compare(*case)["reason"].startswith("where")

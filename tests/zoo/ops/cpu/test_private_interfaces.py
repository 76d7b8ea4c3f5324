"""What is used of numba and torch without a promise is there; where it is not, a warning says what runs instead.

Bounds on both packages stand in pyproject.toml. Whoever raises one has these tests to run.
"""

import sys
import warnings

import numpy as np
import pytest
import torch

from zoo.ops import forms

if not forms.available():
    pytest.skip("needs numba", allow_module_level=True)

import numba
from llvmlite import binding
from numba.core.errors import NumbaError

from zoo.ops import elementwise, norms
from zoo.ops.cpu import cache, threads
from zoo.ops.cpu.jit import FAST, loop
from zoo.ops.cpu.simd import load, store, vec_sigmoid

from ..cases import CASES

QUESTIONS = ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_avx512_supported", "_init_amx")


@pytest.fixture
def fresh(monkeypatch):
    """Nothing has been found out yet, and nothing of it outlives the test."""
    monkeypatch.setattr(forms, "_failures", [])
    functions = forms._cpu, forms.has_tiles, forms._load, threads._openmp, threads._compile, threads._entry
    for function in functions:
        function.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for function in functions:
        function.cache_clear()


@loop
def double(start, stop, x):
    for i in range(start, stop):
        x[i] *= 2


def doubles():
    x = torch.arange(100.0)
    threads.run(double, 100, x)
    return torch.equal(x, 2 * torch.arange(100.0))


def test_an_entry_is_built_by_hand():
    """Of every kind of argument, nested too: test_threads."""
    with warnings.catch_warnings(action="error"):
        assert threads._entry(double, ((torch.float32, 1),), 2 + 7) is not None


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP on Linux")
def test_torch_runs_loops_on_its_threads(fresh):
    with warnings.catch_warnings(action="error"):
        assert threads._openmp() is not None


def test_torch_knows_the_cpu():
    for question in QUESTIONS:
        assert isinstance(getattr(torch.cpu, question)(), bool)


def test_numba_has_what_intrinsics_and_flags_are_made_of():
    """`make_array`, `PrimitiveModel`, `get_or_insert_function`, an LLVM intrinsic, and the flags as they are."""

    @numba.njit(fastmath=FAST)
    def sigmoid(x, y):
        store(vec_sigmoid(load(x, 0)), y, 0)

    x, y = np.linspace(-3, 3, 16, dtype=np.float32), np.zeros(16, np.float32)
    sigmoid(x, y)
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-x)), rtol=1e-6)
    module = sigmoid.inspect_llvm(sigmoid.signatures[0])
    assert "nnan" not in module
    assert "ninf" not in module


def test_numba_keeps_machine_code_where_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "folder", lambda: tmp_path)

    def nothing(start, stop):
        pass

    first, second = loop(nothing), loop(nothing)
    first(0, 1), second(0, 1)
    assert list(tmp_path.rglob("*.nbc"))
    assert sum(first.stats.cache_misses.values()) == sum(second.stats.cache_hits.values()) == 1
    assert isinstance(binding.get_host_cpu_features().flatten(), str)


def failing(error):
    def fail(*_):
        raise error

    return fail


def longer(x, words, copies, pack=threads._pack):
    """As of a numba whose arrays have one more field."""
    words.append(0)
    return pack(x, words, copies)


MISSING = {
    "threads of their own, .* call convention": (threads, "_build", failing(AttributeError("no call convention"))),
    "9 words, not 10": (threads, "_pack", longer),
    "no GNU interface": (threads.ctypes, "CDLL", failing(OSError("libgomp.so: cannot open shared object file"))),
}


@pytest.mark.parametrize("said", MISSING)
def test_without_an_entry_or_openmp_loops_run_on_threads_of_their_own(fresh, said):
    fresh.setattr(*MISSING[said])
    with pytest.warns(UserWarning, match=said):
        assert doubles()
    with warnings.catch_warnings(action="error"):
        assert doubles(), "it is said once"


def test_a_torch_that_does_not_know_the_cpu_multiplies_itself(fresh):
    for question in QUESTIONS:
        fresh.delattr(torch.cpu, question)
    with pytest.warns(UserWarning, match="has no torch.cpu._is_avx512"):
        assert forms.matmul_backend(torch.bfloat16) is forms.matmul_backend(torch.float32) is None
    assert not forms.has_tiles()


def lacking(fresh):
    """A numba without what a module of loops is made of."""
    fresh.delitem(sys.modules, "zoo.ops.cpu.elementwise", raising=False)
    fresh.delattr(sys.modules["zoo.ops.cpu.jit"], "exp")


def broken(fresh):
    """A numba that fails when a loop is compiled, which is when it first runs."""
    fresh.setattr(type(double), "compile", failing(NumbaError("no such instruction")))


@pytest.mark.parametrize("plant", [lacking, broken])
def test_a_numba_that_fails_leaves_ops_to_torch(fresh, plant):
    plant(fresh)
    x = torch.randn(3, 4)
    with pytest.warns(UserWarning, match="compiled loops cannot be used"):
        y = elementwise.positive(x)
    torch.testing.assert_close(y, torch.nn.functional.elu(x) + 1)
    assert not forms.available()
    with warnings.catch_warnings(action="error"):
        elementwise.positive(x), norms.rms(x, torch.ones(4), 1e-5)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.op in forms.CPU])
def test_every_op_falls_back(fresh, name):
    fresh.setattr(threads, "_compile", failing(forms.CompilationError("planted")))
    inputs = [x.to(torch.complex64 if x.is_complex() else torch.float32) for x in CASES[name].inputs]
    with warnings.catch_warnings(action="ignore"):
        got = CASES[name].fast(*inputs)
    if forms.available():
        pytest.skip("this CPU has no fast loops for it")
    torch.testing.assert_close(got, CASES[name].fast(*inputs), rtol=0, atol=0)


def test_a_backward_pass_that_cannot_be_compiled_says_what_to_do(fresh):
    x = torch.randn(3, 4, requires_grad=True)
    y = elementwise.positive(x)
    threads._entry.cache_clear(), threads._compile.cache_clear()
    broken(fresh)
    with pytest.raises(forms.CompilationError, match="ZOOBENCH_COMPILED=0"):
        y.sum().backward()

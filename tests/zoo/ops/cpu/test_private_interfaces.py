"""What is used of numba and torch without a promise is there (how loops run on torch's threads: `test_threads`); where
it is not, a warning says what runs instead.

Bounds on both packages stand in pyproject.toml. Whoever raises one has these tests to run.
"""

import warnings

import numpy as np
import pytest
import torch

from zoo.ops import forms

if not forms.available():
    pytest.skip("needs numba", allow_module_level=True)

import numba
from llvmlite import binding
from numba.core.dispatcher import Dispatcher
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
    monkeypatch.setattr(forms, "failures", [])
    functions = forms._cpu, forms.has_tiles, forms._load, forms._target_features, threads._openmp, threads._entry
    for function in functions:
        function.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for function in functions:
        function.cache_clear()


def test_torch_knows_the_cpu():
    for question in QUESTIONS:
        assert isinstance(getattr(torch.cpu, question)(), bool)
    assert isinstance(torch.ops.mkldnn._is_mkldnn_bf16_supported(), bool)  # what ARM is asked


@pytest.mark.parametrize("features", ["", "+sse2,+avx2", "+avx512f,+avx512bf16,+amx-tile,-avx512f,-avx512bf16"])
def test_loops_multiply_with_what_numba_compiles_for(fresh, features):
    fresh.setattr(numba.core.config, "CPU_FEATURES", features)
    assert forms.matmul_backend(torch.bfloat16) is forms.matmul_backend(torch.float32) is None


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


def test_a_torch_that_does_not_know_the_cpu_multiplies_itself(fresh):
    for question in QUESTIONS:
        fresh.delattr(torch.cpu, question)
    with pytest.warns(UserWarning, match="has no torch.cpu._is_avx512"):
        assert forms.matmul_backend(torch.bfloat16) is forms.matmul_backend(torch.float32) is None
    assert not forms.has_tiles()


FAILING = {
    "cannot import name": (forms, "import_module", failing(ImportError("cannot import name"))),
    "no such instruction": (Dispatcher, "compile", failing(NumbaError("no such instruction"))),
    "no call convention": (threads, "_build", failing(AttributeError("no call convention"))),
    "21 words, not 24": (threads, "_pack", longer),
    "no GNU interface": (threads.ctypes, "CDLL", failing(OSError("libgomp.so: cannot open shared object file"))),
}


@pytest.mark.parametrize("said", FAILING)
def test_a_numba_or_torch_that_fails_leaves_ops_to_torch(fresh, said):
    fresh.setattr(*FAILING[said])
    x = torch.randn(3, 4)
    with pytest.warns(UserWarning, match=f"compiled loops cannot be used, torch's ops run instead: .*{said}"):
        y = elementwise.positive(x)
    torch.testing.assert_close(y, torch.nn.functional.elu(x) + 1)
    assert not forms.available()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        elementwise.positive(x), norms.rms(x, torch.ones(4), 1e-5)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.op in forms.CPU])
def test_every_op_falls_back(fresh, name):
    fresh.setattr(threads, "_entry", failing(forms.CompilationError("planted")))
    inputs = [x.to(torch.complex64 if x.is_complex() else torch.float32) for x in CASES[name].inputs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = CASES[name].fast(*inputs)
    if forms.available():
        pytest.skip("this CPU has no fast loops for it")
    torch.testing.assert_close(got, CASES[name].fast(*inputs), rtol=0, atol=0)


def test_a_backward_pass_that_cannot_be_compiled_says_what_to_do(fresh):
    x = torch.randn(3, 4, requires_grad=True)
    y = elementwise.positive(x)
    threads._entry.cache_clear()
    fresh.setattr(*FAILING["no such instruction"])
    with pytest.raises(forms.CompilationError, match="ZOOBENCH_COMPILED=0"):
        y.sum().backward()

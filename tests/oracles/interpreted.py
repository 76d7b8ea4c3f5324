"""Runs the Triton kernels of flash-linear-attention without a GPU, by Triton's interpreter.

    python tests/oracles/interpreted.py STEPS FORM ...

prints as JSON what `zoo.ops.official.errors` finds of such adapters, fresh memory being NaN. The interpreter takes the
bits of bfloat16 for whole numbers: its documentation says that it does not support them, and products come out at 1e10.
`prepare` has it hold them as float32, rounded to bfloat16 where kernels convert and store.
"""

import dataclasses
import json
import os
import sys
from functools import wraps

os.environ["TRITON_INTERPRET"] = "1"  # asked at the first import

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.autotuner import Autotuner
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

np_dtype = interpreter._get_np_dtype


class Step(int):
    """A step of a loop in a kernel: compiled it is a tensor, interpreted an int, which has no `to`."""

    def to(self, *_):
        return self


def first_configuration(self, *arguments, **options):
    """Instead of `Autotuner.run`, which measures all of them on a GPU."""
    return self.fn.run(*arguments, **options, **self.configs[0].all_kwargs())


def is_bf16(dtype):
    return dtype.scalar == tl.bfloat16


def bits(x):
    """Those of the nearest bfloat16, ties to even."""
    whole = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return np.where(np.isnan(x), 0x7FC0, (whole + (whole >> 16 & 1) + 0x7FFF) >> 16).astype(np.uint16)


def values(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def load(plain):
    def call(self, pointers, mask, other, *hints):
        if not is_bf16(pointers.get_element_ty()):
            return plain(self, pointers, mask, other, *hints)
        rest = np.zeros(pointers.data.shape, np.uint16) if other is None else bits(other.data)
        found = interpreter._interpreter.load(pointers.data, mask.data, rest, np.dtype(np.uint16))
        return TensorHandle(values(found), tl.bfloat16)

    return call


def store(plain):
    def call(self, pointers, value, *rest):
        stored = TensorHandle(bits(value.data), tl.uint16) if is_bf16(value.dtype) else value
        return plain(self, pointers, stored, *rest)

    return call


def cast(plain):
    def call(self, x, to, *rounding):
        x = TensorHandle(x.data, tl.float32) if is_bf16(x.dtype) else x
        if is_bf16(to):
            return TensorHandle(values(bits(x.data)), tl.bfloat16)
        return x if to.scalar == x.dtype.scalar else plain(self, x, to, *rounding)

    return call


def rounded(plain):
    @wraps(plain)
    def call(self, x, *others):
        y = plain(self, x, *others)
        if is_bf16(x.dtype) and y.data.dtype == np.float32:
            y.data = values(bits(y.data))
        return y

    return call


def prepare():
    """Have what is measured on a GPU, or asked of compiled loops, do without; and bfloat16 be what it is."""
    Autotuner.run = first_configuration
    interpreter._get_np_dtype = lambda dtype: np.dtype(np.float32) if is_bf16(dtype) else np_dtype(dtype)
    TensorHandle.__post_init__ = lambda self: None  # it counts bits
    changes = {"create_masked_load": load, "create_masked_store": store, "cast_impl": cast, "create_fp_to_fp": cast}
    for name, change in {**changes, "binary_op": rounded, "unary_op": rounded}.items():
        setattr(InterpreterBuilder, name, change(getattr(InterpreterBuilder, name)))
    for name, module in list(sys.modules.items()):
        if name.startswith("fla.ops."):
            module.range = lambda *limits: map(Step, range(*limits))
            if hasattr(module, "gather"):  # taken from `tl` before that can be interpreted
                module.gather = lambda *arguments, **options: tl.gather(*arguments, **options)


def main(steps, forms):
    import fla.ops  # noqa: F401  (all of them, so that they can be prepared)

    from zoo.ops import official

    prepare()
    torch.use_deterministic_algorithms(True, warn_only=True)  # which fills fresh memory with NaN
    torch.set_num_threads(1)
    found = {}
    for kernel in official.kernels():
        for dtype in kernel.dtypes if kernel.form in forms else ():
            G = 1 if kernel.op == "linear_attention" else 2
            count = len(kernel.draw(torch.Generator(), 2, G, 2, 16, 24))
            dtypes = [None if place in kernel.unused else dtype for place in range(count)]
            long = dataclasses.replace(kernel, lengths=(steps,))
            found[f"{kernel.form} {dtype}"] = official.errors(long, (G, 2, 16, 24), dtypes, torch.device("cpu"))
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

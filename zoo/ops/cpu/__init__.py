"""Compiled loops for CPUs, by numba. `zoo.ops.forms` alone chooses them: without this folder every op still works.

One file per op holds its loops and the autograd function over them. What they are made of: `jit` (how loops are
compiled, and functions that vectorise), `cache` (machine code on disk), `threads` (how torch calls a loop), `bfloat16`,
`simd` (whole registers as values), `matmul` (matrix products inside loops, by `amx` or `avx512`, through `intrinsics`),
`matrices` (what is done with matrices between products).
"""

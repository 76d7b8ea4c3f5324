"""Runs the Triton kernels of flash-linear-attention without a GPU, by Triton's interpreter.

    python tests/oracles/interpreted.py STEPS FORM ...

prints as JSON what `zoo.ops.official.errors` finds of such adapters, fresh memory being NaN. The interpreter takes
the bits of bfloat16 for whole numbers: its documentation says that it does not support them, and products come out at
1e10. So each kernel is given such tensors in float32, and what it leaves in them is rounded.
"""

import dataclasses
import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"  # asked at the first import

import torch
import triton.language as tl
from triton.runtime.autotuner import Autotuner
from triton.runtime.interpreter import GridExecutor


class Step(int):
    """A step of a loop in a kernel: compiled it is a tensor, interpreted an int, which has no `to`."""

    def to(self, *_):
        return self


def first_configuration(self, *arguments, **options):
    """Instead of `Autotuner.run`, which measures all of them on a GPU."""
    return self.fn.run(*arguments, **options, **self.configs[0].all_kwargs())


def in_float32(execute):
    def call(self, *arguments, **options):
        narrow = {id(x): x for x in (*arguments, *options.values()) if torch.is_tensor(x) and x.dtype == torch.bfloat16}
        wide = {key: x.float() for key, x in narrow.items()}
        arguments = [wide.get(id(x), x) for x in arguments]
        execute(self, *arguments, **{name: wide.get(id(x), x) for name, x in options.items()})
        for key, x in narrow.items():
            x.copy_(wide[key])

    return call


def prepare():
    """Have what is measured on a GPU, or asked of compiled loops, do without."""
    Autotuner.run = first_configuration
    GridExecutor.__call__ = in_float32(GridExecutor.__call__)
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

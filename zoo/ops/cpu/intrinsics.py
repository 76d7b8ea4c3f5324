"""Instructions that numba has no word for, inside compiled loops: what an intrinsic needs to emit them."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic
from numba.extending import overload

from zoo.ops.cpu.jit import FAST

binding.initialize_native_asmparser()  # for assembly inside loops

intrinsic: Any = _intrinsic  # what loops call lacks the argument that is about types
BYTE, SHORT, WORD, LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))


def long(x: int) -> Any:
    """A constant of 64 bits."""
    return ir.Constant(LONG, x)


class Code:
    """What an intrinsic emits."""

    def __init__(self, context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> None:
        self.context, self.build, self.arguments = context, builder, dict(enumerate(arguments))
        self.types = signature.args

    def address(self, i: int, offset: Any) -> Any:
        """Of element `offset` of array i."""
        array = self.context.make_array(self.types[i])(self.context, self.build, self.arguments[i])
        return self.build.bitcast(self.build.gep(array.data, [offset]), BYTE.as_pointer())

    def offset_rows(self, address: Any, rows: Any, step: Any) -> Any:
        """`rows` rows of `step` bytes behind an address."""
        return self.build.gep(address, [self.build.mul(rows, step)])

    def broadcast(self, number: Any, vector: Any) -> Any:
        """A vector of that type, all of one number."""
        empty = ir.Constant(vector, ir.Undefined)
        start = self.build.insert_element(empty, number, ir.Constant(WORD, 0))
        return self.build.shuffle_vector(start, empty, ir.Constant(ir.VectorType(WORD, vector.count), None))

    def call(self, name: str, *arguments: Any, returns: Any = None, flags: tuple[str, ...] = ()) -> Any:
        """An intrinsic of LLVM."""
        kind = ir.FunctionType(returns or ir.VoidType(), [x.type for x in arguments])
        function = cgutils.get_or_insert_function(self.build.module, kind, f"llvm.{name}")
        return self.build.call(function, arguments, fastmath=flags)


def emits(function: Callable[..., Any]) -> Callable[..., Any]:
    """What numba has an intrinsic return: `function(code, *arguments)`, and no result where that is None."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result = function(Code(context, builder, signature, arguments), *arguments)
        return context.get_dummy_value() if result is None else result

    return generate


def block_product(emit: Callable[..., None]) -> Any:
    """The intrinsic of a block of a product: c[at_c:] ← a[at_a:] (·, k) b[at_b:] (k, n), on top of c if `more`."""

    @intrinsic
    def run(typing: Any, a: Any, at_a: Any, b: Any, at_b: Any, c: Any, at_c: Any, n: Any, k: Any, more: Any) -> Any:
        whole = types.int64
        return types.void(a, whole, b, whole, c, whole, whole, whole, types.boolean), emits(emit)

    return run


def by_type(choose: Callable[..., Any]) -> Any:
    """A function for loops, implemented by what `choose` returns for the types of its arguments."""

    @wraps(choose)
    def call(*_: Any) -> Any:
        raise NotImplementedError("for loops only")

    overload(call, jit_options={"fastmath": FAST}, strict=False)(choose)  # strictly, annotations would have to be equal
    return call

"""The stabilised mLSTM cell of xLSTM: `mlstm` in chunks, `mlstm_naive` as the equations read."""

from zoo.ops.arguments import checked
from zoo.ops.mlstm import chunked
from zoo.ops.mlstm.chunked import mlstm
from zoo.ops.mlstm.naive import init_state
from zoo.ops.mlstm.naive import mlstm as mlstm_naive

__all__ = ["exponents", "init_state", "mlstm", "mlstm_naive"]

exponents = checked(chunked.exponents)

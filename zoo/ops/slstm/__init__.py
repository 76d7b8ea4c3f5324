"""The sLSTM cell of xLSTM: `slstm`, compiled where it can be, and `slstm_naive` as the equations read."""

from zoo.ops.slstm.naive import LOWEST, init_state
from zoo.ops.slstm.naive import slstm as slstm_naive
from zoo.ops.slstm.steps import slstm

__all__ = ["LOWEST", "init_state", "slstm", "slstm_naive"]

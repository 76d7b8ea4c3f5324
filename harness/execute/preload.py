"""Loads in the fork server, once for all runs, the gates and what numba loads on its first call."""

import atexit
import contextlib
import os

from harness.gates.registry import gates
from zoo.ops.forms import available

gates()
if available():
    with contextlib.suppress(Exception):  # numba raises whatever its parts do not find; each run warns of it
        import numba

        numba.njit(lambda: 0)()

atexit.register(os._exit, 0)  # the server has nothing to put in order, and torch takes seconds to

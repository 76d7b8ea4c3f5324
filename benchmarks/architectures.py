"""How fast every architecture is: beside other implementations, beside pre_ln, and over length.

    python benchmarks/architectures.py [--quick] FOLDER

Four tables go into FOLDER, each with its rows as JSON, and a picture of time over length. They take about half
an hour on two cores; --quick measures one round of everything instead of five.
"""

import argparse
import dataclasses
from pathlib import Path

from rich.console import Console

from harness import bench
from harness.bench import report

BOTH = "256x8,2048x2"
LONG = "1024x4,2048x2,4096x1,8192x1,16384x1"
PEERS = (
    *("transformer_pp", "pre_ln", "mamba2", "mamba", "rwkv4", "performer", "reformer"),
    *("linformer", "longformer", "mlstm", "slstm", "lstm"),
)
LINEAR = (
    *("gla", "retnet", "delta_net", "fast_weights", "linear_transformer", "performer", "based", "gated_delta_net"),
    *("rwkv4", "rwkv5", "rwkv6", "rwkv7", "mamba", "mamba2", "mlstm", "slstm", "lstm", "gru", "min_gru", "griffin"),
)
CONVOLUTIONS = ("s4", "s4d", "s5", "lru", "h3", "hyena", "gss", "mega")
SPARSE = ("linformer", "longformer", "local", "reformer")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="one round of a quarter of a second")
    parser.add_argument("--only", choices=["peers-fp32", "peers-auto", "family", "lengths"], action="append")
    asked = parser.parse_args()
    pace = {"repeats": 1, "seconds": 0.25} if asked.quick else {"repeats": 5, "seconds": 1.0}
    both = bench.parse_settings(lengths=BOTH, **pace)
    peers = dataclasses.replace(both, peers=True, reference=None)
    plans = {
        "peers-fp32": (("transformer_pp", "pre_ln"), dataclasses.replace(peers, precision="fp32")),
        "peers-auto": (PEERS, peers),
        "family": ((*LINEAR, *CONVOLUTIONS), both),
        "lengths": (
            (*LINEAR, *CONVOLUTIONS, *SPARSE, "pre_ln"),
            bench.parse_settings(
                lengths=LONG, contexts="128", reference=None, **pace | {"repeats": min(3, pace["repeats"])}
            ),
        ),
    }
    console = Console(width=120)
    for name, (architectures, plan) in plans.items():
        if asked.only and name not in asked.only:
            continue
        console.rule(name)
        rows = bench.bench(architectures, plan, on_row=lambda rows: console.print(report.line(rows[-1])))
        report.show(rows, console)
        report.save(rows, asked.folder / name)


if __name__ == "__main__":
    main()

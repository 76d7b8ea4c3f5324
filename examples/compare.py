"""The same from Python: build a model, run a suite, read its records.

python examples/compare.py
"""

from pathlib import Path

import torch

import harness
import tasks
import zoo

SUITE = Path(__file__).with_name("first.yaml")


def describe(name: str) -> None:
    """Build an architecture and print its size and its loss on real text before any training."""
    task = tasks.build("text", corpus="wikipedia_xml", length=64)
    torch.manual_seed(0)
    model = zoo.build(name, "lm", shape=zoo.Shape(length=64, vocab=256, outputs=256, width=48, depth=2))
    batch = task.batch("valid", 0, size=8)
    with torch.no_grad():
        loss = task.loss(model(batch), batch)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{name}: {count:,} parameters, {loss:.2f} nats per byte before training (a guess: ln 256 = 5.55)")


def main() -> None:
    """Describe two architectures, then train them and print their scores."""
    for name in ("rwkv4", "lstm"):
        describe(name)
    changes = ("suite=compare", "architectures=[rwkv4, lstm]", "model={depth: 2}", "budget.stop.tokens=50k")
    results = harness.run(SUITE, overrides=changes)
    scores: dict[str, list[float]] = {}
    for record in results.records:  # docs/records.md has every key
        scores.setdefault(record["spec"]["architecture"], []).append(record["metrics"]["test"]["bits_per_byte"])
    for name, values in sorted(scores.items(), key=lambda item: sum(item[1])):
        print(f"{name}: {sum(values) / len(values):.3f} bits per byte, the mean of {len(values)} seeds")
    print(f"records: {results.folder}")


if __name__ == "__main__":
    main()

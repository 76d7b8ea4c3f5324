"""Planted records: what the harness would have left, with numbers chosen by the test."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

Record = dict[str, Any]
MESSAGES = {
    "diverged": "loss is not finite at step 12",
    "oom": "out of memory",
    "unsupported": "TokenMLP looks both ways and cannot be made causal",
}


def plant(architecture: str, seed: int, score: float | None = None, **changes: Any) -> Record:
    """One record; `changes` are set at dotted paths written with double underscores."""
    status = changes.pop("status", "ok")
    test = {} if score is None else {"loss": score * 0.69, "bits_per_byte": score}
    record: Record = {
        "schema": 1,
        "run_id": f"{architecture}-{seed}",
        "suite": "quick",
        "status": status,
        "spec": {
            "architecture": architecture,
            "architecture_label": architecture,
            "task": "text",
            "task_label": "text",
            "seed": seed,
            "kind": "final",
            "stop": {"tokens": 1_000_000},
            "match": {"params": 400_000, "count": "non_embedding", "tolerance": 0.05},
            "train": {"lr": 0.003, "batch_tokens": 1024},
        },
        "size": {
            "width": 96,
            "depth": 4,
            "params": 450_000,
            "params_non_embedding": 401_000,
            "state_bytes": 12_288,
            "target": 400_000,
            "mismatch": 0.0025,
        },
        "budget": {"used": {"tokens": 999_936, "steps": 977, "flops": 2.4e12, "seconds": 31.2}},
        "data": {"fingerprint": "f00d", "stream_hash": f"stream{seed}"},
        "metrics": {
            "primary": "bits_per_byte",
            "higher_is_better": False,
            "chance": 8.0,
            "unit": "bits/byte",
            "valid": dict(test),
            "test": test,
        },
        "curve": [] if score is None else _curve(score),
        "speed": {"train_tokens_per_s": 31_000.0},
        "memory": {"peak_bytes": 180_000_000},
        "eligibility": {"ranked": True, "gates": {"causality": {"passed": True, "measured": 0.0, "limit": 1e-4}}},
        "provenance": {
            "commit": "abc1234",
            "hardware": "AMD EPYC, 2 cores",
            "threads": 1,
            "precision": "bf16",
            "zoobench": "0.1.0",
            "packages": {"torch": "2.9.0", "numpy": "2.4.6"},
        },
        "error": None if status == "ok" else {"kind": status, "message": MESSAGES.get(status, status)},
    }
    if status == "unsupported":
        record |= {"size": None, "speed": None, "memory": None, "eligibility": None, "budget": None, "data": None}
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = record
        for name in parents:
            node = node[name]
        node[last] = value
    return copy.deepcopy(record)


def _curve(score: float) -> list[Record]:
    points = []
    for i in range(1, 41):
        tokens = i * 25_000
        value = score + 4.0 * (tokens / 25_000) ** -0.8
        point: Record = {"tokens": tokens, "seconds": tokens / 31_000, "loss": value * 0.69}
        if i % 8 == 0:
            point["valid"] = {"bits_per_byte": value}
        points.append(point)
    return points


@pytest.fixture(name="plant")
def _plant() -> Callable[..., Record]:
    return plant


@pytest.fixture
def baselines() -> list[Record]:
    about = {"bigram": "counts of byte pairs", "trigram": "counts of byte triples"}
    values = {"bigram": 3.91, "trigram": 3.21}
    return [
        {"task_label": "text", "metric": "bits_per_byte", "name": name, "value": values[name], "about": about[name]}
        for name in values
    ]


@pytest.fixture
def three(plant: Callable[..., Record]) -> list[Record]:
    """Three architectures on three seeds. Seed effects -.1, 0, .1; noise ±.01; means 2, 3 and 3.02."""
    noise = {"lstm": (0.01, -0.02, 0.01), "s4d": (-0.01, 0.01, 0.0), "pre_ln": (0.0, 0.01, -0.01)}
    means = {"lstm": 2.0, "s4d": 3.0, "pre_ln": 3.02}
    return [plant(a, s, means[a] + 0.1 * (s - 1) + noise[a][s]) for a in means for s in range(3)]

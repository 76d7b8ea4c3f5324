"""Boards of planted records that several tests start from."""

from __future__ import annotations

from typing import Any

import pytest

from harness.records.record import Record
from tests.harness.planted import plant

NOISE = {"lstm": (0.01, -0.02, 0.01), "s4d": (-0.01, 0.01, 0.0), "pre_ln": (0.0, 0.01, -0.01)}


@pytest.fixture
def baselines() -> list[dict[str, Any]]:
    return [
        {"task_label": "text", "metric": "bits_per_byte", "name": "bigram", "value": 3.91, "about": "byte pairs"},
        {"task_label": "text", "metric": "bits_per_byte", "name": "trigram", "value": 3.21, "about": "byte triples"},
    ]


@pytest.fixture
def three() -> list[Record]:
    """Three architectures on three seeds. Seed effects -.1, 0, .1; noise ±.01; means 2, 3 and 3.02."""
    means = {"lstm": 2.0, "s4d": 3.0, "pre_ln": 3.02}
    return [plant(a, s, means[a] + 0.1 * (s - 1) + NOISE[a][s]) for a in means for s in range(3)]

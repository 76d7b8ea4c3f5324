"""Boards of planted records that several tests start from."""

import io

import pytest
from rich.console import Console

from harness import board
from tests.harness.planted import plant

NOISE = {"lstm": (0.01, -0.02, 0.01), "s4d": (-0.01, 0.01, 0.0), "pre_ln": (0.0, 0.01, -0.01)}


@pytest.fixture
def baselines():
    shared = {"task_label": "text", "metric": "bits_per_byte", "about": ""}
    return [shared | {"name": name, "value": value} for name, value in (("bigram", 3.91), ("trigram", 3.21))]


@pytest.fixture
def three():
    """Three architectures on three seeds. Seed effects -.1, 0, .1; noise ±.01; means 2, 3 and 3.02."""
    means = {"lstm": 2.0, "s4d": 3.0, "pre_ln": 3.02}
    return [plant(a, s, means[a] + 0.1 * (s - 1) + NOISE[a][s]) for a in means for s in range(3)]


def by_name(rows):
    """Rows by architecture."""
    return {row.architecture: row for row in rows}


def text_of(made, width=100):
    """A board as a terminal shows it."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
    board.render(made, console)
    return console.file.getvalue()

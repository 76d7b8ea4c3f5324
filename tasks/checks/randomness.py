"""The global generators of random, numpy and torch, which no task may touch."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


def global_states() -> tuple[Any, ...]:
    """Their states, to be compared."""
    import torch

    name, keys, *rest = np.random.get_state()
    return random.getstate(), (name, np.asarray(keys).tobytes(), *rest), torch.get_rng_state().numpy().tobytes()


@contextmanager
def randomness(seed: int) -> Iterator[tuple[Any, ...]]:
    """Seeds the global generators and hands out their states; afterwards they are as they were."""
    import torch

    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.random.default_generator.manual_seed(seed)
    try:
        yield global_states()
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])

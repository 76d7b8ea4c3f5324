"""A queue of runs on many devices, on paper: how long it takes, and what failures cost."""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Queue:
    """What became of a queue of runs, in seconds; those of several slots are added up."""

    wall: float
    """Until the last run ended."""
    busy: float
    """What runs took."""
    lost: float
    """Of that, what failures had done again, or what led to no record."""
    lost_runs: int
    """Runs that failed more often than they may, and have no record."""


def simulate(
    rounds: Iterable[Iterable[float]],
    slots: int,
    *,
    start: float = 0.0,
    failures: float = 0.0,
    checkpoint: float = 20.0,
    retries: int = 0,
) -> Queue:
    """Do runs in their order in so many slots, as the pool does: one that failed goes on after all others.

    Args:
        rounds: the seconds of runs; a round begins when the one before has ended.
        start: seconds before an attempt works.
        failures: of a slot in a second, a Poisson process; it is there again at once.
        checkpoint: seconds between those from which runs go on. retries: how often each may.
    """
    chance, number = random.Random(0), itertools.count()
    running: list[tuple[float, int, float, float, int]] = []
    now, busy, lost, lost_runs = 0.0, 0.0, 0.0, 0
    for works in rounds:
        waiting = deque((work, work, 0) for work in works)
        while waiting or running:
            while waiting and len(running) < slots:
                work, left, failed = waiting.popleft()
                takes, until = start + left, chance.expovariate(failures) if failures else math.inf
                if until < takes:
                    kept = max(0.0, until - start) // checkpoint * checkpoint
                    takes, left, failed, lost = until, left - kept, failed + 1, lost + until - kept
                else:
                    left = 0.0
                busy += takes
                heapq.heappush(running, (now + takes, next(number), work, left, failed))
            now, _, work, left, failed = heapq.heappop(running)
            if left and failed <= retries:
                waiting.append((work, left, failed))
            elif left:
                lost_runs, lost = lost_runs + 1, lost + work - left
    return Queue(now, busy, lost, lost_runs)

"""How often a board of equal architectures separates any, and how often a real difference is seen: ours beside others.

    python benchmarks/rankings.py [--boards 4000] FILE

Prints the tables and writes them as Markdown into FILE, below its line <!-- measured -->; some minutes on one core.
Every case has its own seed, so the numbers come out the same again.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.stats import LEVEL, smallest_difference
from harness.stats.judge import Verdict, judge
from harness.stats.studentised import critical_ranges

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Random = np.random.Generator

ARCHITECTURES = (2, 3, 4, 5, 6, 8, 10, 14)
SEEDS = (3, 5, 10, 2)
COMPARED = (3, 5)
"""Seeds at which the other methods are measured too."""

MARK = "<!-- measured -->"

# Methods: (boards, architectures, seeds) -> (boards, pairs), which pairs are separated.


def ours(y: Floats) -> Mask:
    return judge(y).apart


def tukey(y: Floats) -> Mask:
    """Tukey's test on the block design, all spreads taken as equal."""
    _, k, n = y.shape
    first, second = np.triu_indices(k, 1)
    means = y.mean(2)
    residual = y - means[:, :, None] - y.mean(1)[:, None] + y.mean((1, 2))[:, None, None]
    df = (k - 1) * (n - 1)
    error = np.sqrt((residual**2).sum((1, 2)) / df / n)[:, None]
    return np.abs(means[:, first] - means[:, second]) > critical_ranges(k, df, LEVEL) * error


def games_howell(y: Floats) -> Mask:
    """Every architecture by its own variance, without blocks."""
    _, k, n = y.shape
    first, second = np.triu_indices(k, 1)
    means, v = y.mean(2), y.var(2, ddof=1) / n
    total = np.maximum(v[:, first] + v[:, second], 1e-300)
    df = total**2 * (n - 1) / np.maximum(v[:, first] ** 2 + v[:, second] ** 2, 1e-300)
    return np.abs(means[:, first] - means[:, second]) > critical_ranges(k, df, LEVEL) * np.sqrt(total / 2)


def paired_t_holm(y: Floats) -> Mask:
    """Each pair by its own differences, Holm's correction for their number."""
    _, k, n = y.shape
    first, second = np.triu_indices(k, 1)
    difference = y[:, first] - y[:, second]
    error = np.maximum(difference.std(2, ddof=1), 1e-150) / math.sqrt(n)
    p = 2 * stats.t.sf(np.abs(difference.mean(2)) / error, n - 1)
    order = np.argsort(p, axis=1)
    steps = np.take_along_axis(p, order, 1) <= LEVEL / np.arange(p.shape[1], 0, -1)
    apart = np.zeros(p.shape, dtype=bool)
    np.put_along_axis(apart, order, np.logical_and.accumulate(steps, axis=1), axis=1)
    return apart


METHODS: dict[str, Callable[[Floats], Mask]] = {
    "paired t, Holm": paired_t_holm,
    "Games–Howell": games_howell,
    "Tukey, blocks": tukey,
    "ours": ours,
}

# Worlds: equal architectures, (boards, architectures, seeds).

World = Callable[[Random, int, int, int], Floats]


def normal(spread: Callable[[Random, int, int], Floats], block: float = 1.0) -> World:
    def draw(rng: Random, boards: int, k: int, n: int) -> Floats:
        noise = rng.normal(size=(boards, k, n)) * spread(rng, boards, k)[:, :, None]
        return noise + block * rng.normal(size=(boards, 1, n))

    return draw


def fixed(*_: object, of: Callable[[int], Iterable[float]]) -> Callable[[Random, int, int], Floats]:
    return lambda rng, boards, k: np.broadcast_to(np.array([*of(k)], dtype=float), (boards, k))


def wide(count: int, times: float) -> Callable[[int], list[float]]:
    """The first `count`, at most all but two, scatter `times` as widely."""
    return lambda k: [times if a < min(count, max(k - 2, 1)) else 1.0 for a in range(k)]


def other(noise: Callable[[Random, tuple[int, int, int]], Floats]) -> World:
    return lambda rng, boards, k, n: noise(rng, (boards, k, n))


def same_on_every_seed(rng: Random, shape: tuple[int, int, int]) -> Floats:
    """A third of the rows, at least one, never move: all at the common mean."""
    noise = rng.normal(size=shape)
    noise[:, : max(1, shape[1] // 3)] = 0
    return noise


def missing(world: World) -> World:
    """The first row lacks one seed, and the second two where there are five or more."""

    def draw(rng: Random, boards: int, k: int, n: int) -> Floats:
        y = world(rng, boards, k, n)
        if n > 2:
            y[:, 0, 0] = math.nan
        if n > 4:
            y[:, 1, 1:3] = math.nan
        return y

    return draw


WORLDS: dict[str, World] = {
    "equal": normal(fixed(of=lambda k: [1.0] * k)),
    "equal, seed effect 50 times the noise": normal(fixed(of=lambda k: [1.0] * k), block=50),
    "sd log-uniform in [1, e]": normal(lambda rng, boards, k: np.exp(rng.uniform(size=(boards, k)))),
    "half 1, half e": normal(fixed(of=lambda k: [1.0 if a < k // 2 else math.e for a in range(k)])),
    "lognormal sd, log sd ½": normal(lambda rng, boards, k: np.exp(0.5 * rng.normal(size=(boards, k)))),
    "one scatters 20 times": normal(fixed(of=wide(1, 20))),
    "two scatter 20 times": normal(fixed(of=wide(2, 20))),
    "one calm, 1/20": normal(fixed(of=wide(1, 0.05))),
    "three calm, 1/20": normal(fixed(of=wide(3, 0.05))),
    "half calm, 1/20": normal(fixed(of=lambda k: [0.05 if a < k // 2 else 1.0 for a in range(k)])),
    "strung out, 1 to 20": normal(fixed(of=lambda k: np.geomspace(1, 20, k))),
    "a row lacks seeds, equal": missing(normal(fixed(of=lambda k: [1.0] * k))),
    "a row lacks seeds, log-uniform": missing(normal(lambda rng, boards, k: np.exp(rng.uniform(size=(boards, k))))),
    "a row lacks seeds, and scatters 20 times": missing(normal(fixed(of=wide(1, 20)))),
}
HOSTILE: dict[str, World] = {
    "one scatters 5 times": normal(fixed(of=wide(1, 5))),
    "lognormal sd, log sd 1": normal(lambda rng, boards, k: np.exp(rng.normal(size=(boards, k)))),
    "t with 3 df": other(lambda rng, shape: rng.standard_t(3, size=shape)),
    "exponential": other(lambda rng, shape: rng.exponential(size=shape)),
    "lognormal noise": other(lambda rng, shape: np.exp(rng.normal(size=shape))),
    "learned on half of the seeds": other(lambda rng, s: (rng.random(s) < 0.5) + 0.05 * rng.normal(size=s)),
    "learned on a third": other(lambda rng, s: (rng.random(s) < 1 / 3) + 0.05 * rng.normal(size=s)),
    "learned on nine of ten": other(lambda rng, s: (rng.random(s) < 0.9) + 0.05 * rng.normal(size=s)),
    "rounded to whole sd": other(lambda rng, shape: np.round(rng.normal(size=shape))),
    "a third never move": other(same_on_every_seed),
}


def _rng(*key: int | str) -> Random:
    return np.random.default_rng([sum(ord(c) * 31**i for i, c in enumerate(str(part))) % 2**32 for part in key])


def error(world: str, draw: World, method: Callable[[Floats], Mask], k: int, n: int, boards: int) -> float:
    """Share of boards of equal architectures with any pair separated."""
    return float(method(draw(_rng(world, k, n), boards, k, n)).any(1).mean())


def errors(worlds: dict[str, World], boards: int) -> tuple[list[list[str]], list[list[str]]]:
    """Per world: all methods, the worst over three architectures or more; and ours for every number of them."""
    worst, each = [], []
    for name, draw in worlds.items():
        line = [name]
        for n in SEEDS:
            for method in METHODS if n in COMPARED else ["ours"]:
                if "lacks" in name and method != "ours":
                    line.append("–")
                    continue
                found = {k: error(name, draw, METHODS[method], k, n, boards) for k in ARCHITECTURES}
                top = max(ARCHITECTURES[1:], key=lambda k: found[k])
                line.append(f"{_short(found[top])} ({top})" if method == "ours" else _short(found[top]))
                if method == "ours" and n == 3:
                    each.append([name, *(_short(share) for share in found.values())])
        print("  ".join(line), flush=True)
        worst.append(line)
    return worst, each


def power(boards: int) -> list[list[str]]:
    """How often a pair is separated of which one is better by so many sd, the others being equal."""
    lines = []
    for world, draw in {
        "equal": WORLDS["equal"],
        "beside one that scatters 20 times": WORLDS["one scatters 20 times"],
    }.items():
        for k, n, difference in (
            (3, 3, 6),
            (5, 3, 4),
            (8, 3, 3),
            (8, 3, 4),
            (8, 3, 5),
            (14, 3, 4),
            (5, 5, 3),
            (8, 5, 2),
            (8, 5, 3),
            (8, 10, 2),
        ):
            y = draw(_rng("power", world, k, n), boards, k, n)
            y[:, -1] += difference
            first, second = np.triu_indices(k, 1)
            pairs = (second == k - 1) & ((first > 0) | (world == "equal"))
            seen = [_short(float(method(y)[:, pairs].mean())) for method in METHODS.values()]
            lines.append([world, str(k), str(n), f"{difference} sd", *seen])
            print("  ".join(lines[-1]), flush=True)
    return lines


def printed(verdict: Verdict, k: int, n: int) -> Floats:
    """The smallest difference each board prints."""
    dfs = np.geomspace(1, 400, 30)
    found = np.empty(len(verdict.level))
    for level in np.unique(verdict.level):
        here = verdict.level == level
        factor = [smallest_difference(1.0, df, k, n, float(level)) for df in dfs]
        df = np.maximum(verdict.spread.df[here], 1.0)
        found[here] = np.exp(np.interp(np.log(df), np.log(dfs), np.log(factor))) * np.sqrt(
            verdict.spread.variance[here]
        )
    return found


def minimum(boards: int) -> list[list[str]]:
    """How often a planted difference of the printed size is found, on the board that printed it and on a fresh one."""
    lines = []
    for world in ("equal", "sd log-uniform in [1, e]", "half 1, half e"):
        for n in SEEDS:
            line = [world, str(n)]
            for k in (2, 3, 5, 8, 14):
                rng = _rng("minimum", world, k, n)
                y, fresh = _twice(rng, world, boards, k, n)
                size = printed(judge(y), k, n)
                seen = []
                for table in (y, fresh):
                    planted = table.copy()
                    planted[:, 0] += size[:, None]
                    seen.append(_short(float(judge(planted).apart[:, : k - 1].mean())))
                line.append(" / ".join(seen))
            print("  ".join(line), flush=True)
            lines.append(line)
    return lines


def _twice(rng: Random, world: str, boards: int, k: int, n: int) -> tuple[Floats, Floats]:
    """Two repetitions with the same spreads."""
    both = WORLDS[world](rng, boards, k, 2 * n)
    return both[:, :, :n], both[:, :, n:]


def _short(share: float) -> str:
    return f"{share:.3f}".lstrip("0") if share < 1 else "1"


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, rule, *lines])


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--boards", type=int, default=4000)
    asked = parser.parse_args()
    heads = ["equal architectures"]
    heads += [f"{m}, n = {n}" for n in SEEDS for m in (METHODS if n in COMPARED else ["ours"])]
    counts = [f"k = {k}" for k in ARCHITECTURES]
    model, model_each = errors(WORLDS, asked.boards)
    hostile, hostile_each = errors(HOSTILE, asked.boards)
    noise = math.sqrt(0.0475 / asked.boards)
    parts = [
        f"{asked.boards} simulated boards a case; the standard error of .050 is {noise:.4f}.",
        "### False separations",
        "Boards of equal architectures with any pair separated: the worst share over k = 3 … 14, in brackets where.",
        markdown(heads, model),
        "The same where noise is not normal, or where scatter is too uneven to be seen.",
        markdown(heads, hostile),
        "Ours at n = 3 seeds, for every number k of architectures; k = 2 is the paired t test.",
        markdown(["equal architectures", *counts], [*model_each, *hostile_each]),
        "### Power",
        "One architecture is better than all others: how often it is separated from one of them (the wild one aside).",
        markdown(["spreads", "k", "n", "difference", *METHODS], power(asked.boards)),
        "### The printed smallest difference",
        "How often it is found: planted on the board that printed it / on a fresh one. At least .80 is promised.",
        markdown(["spreads", "n", *(f"k = {k}" for k in (2, 3, 5, 8, 14))], minimum(asked.boards)),
    ]
    before = asked.file.read_text(encoding="utf-8").partition(MARK)[0] if asked.file.exists() else ""
    asked.file.write_text(before + MARK + "\n\n" + "\n\n".join(parts) + "\n", encoding="utf-8")
    print(f"wrote {asked.file}")


if __name__ == "__main__":
    main()

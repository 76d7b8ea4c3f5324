"""How often a board of equal architectures separates any, and how often a real difference is seen: ours beside others.

    python benchmarks/rankings.py [--boards 4000] FILE

Prints the tables and writes them as Markdown into FILE, below its line <!-- measured -->; minutes on one core.
Every case has its own seed, so the numbers come out the same again.
"""

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.records.seeds import SeedRule
from harness.stats import LEVEL, Comparison, compare, level_of
from harness.stats.judge import Verdict, judge
from harness.table.rounds import follow

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Random = np.random.Generator

MARK = "<!-- measured -->"

# Methods: (boards, rows, seeds) -> (boards, pairs), which pairs are separated.


DRAWS = 1000
"""Draws a board; others for each, so that their luck averages out."""


def judged(y: Floats) -> list[Verdict]:
    return [judge(board, draws=DRAWS, seed=number) for number, board in enumerate(y)]


def ours(y: Floats) -> Mask:
    return np.array([verdict.apart for verdict in judged(y)])


def tukey(y: Floats) -> Mask:
    """Tukey's test, one variance for all rows."""
    _, k, n = y.shape
    first, second = np.triu_indices(k, 1)
    means, error = y.mean(2), np.sqrt(y.var(2, ddof=1).mean(1) / n)[:, None]
    return np.abs(means[:, first] - means[:, second]) > error * stats.studentized_range.ppf(1 - LEVEL, k, k * (n - 1))


def welch(y: Floats) -> Mask:
    """Each pair by Welch's test of its own, Holm's correction for their number."""
    first, second = np.triu_indices(y.shape[1], 1)
    p = np.nan_to_num(stats.ttest_ind(y[:, first], y[:, second], axis=2, equal_var=False).pvalue, nan=1.0)
    order = np.argsort(p, axis=1)
    steps = np.take_along_axis(p, order, 1) <= LEVEL / np.arange(p.shape[1], 0, -1)
    apart = np.zeros(p.shape, dtype=bool)
    np.put_along_axis(apart, order, np.logical_and.accumulate(steps, axis=1), axis=1)
    return apart


METHODS: dict[str, Callable[[Floats], Mask]] = {"Tukey": tukey, "Welch, Holm": welch, "ours": ours}

# Worlds of equal rows: (boards, rows, seeds).

World = Callable[[Random, int, int, int], Floats]


def normal(spread: Callable[[Random, int, int], Floats]) -> World:
    """Normal noise with standard deviations of (boards, rows) or (rows,)."""

    def draw(rng: Random, boards: int, k: int, n: int) -> Floats:
        sd = np.broadcast_to(spread(rng, boards, k), (boards, k))
        return rng.normal(size=(boards, k, n)) * sd[:, :, None]

    return draw


def wide(count: int, times: float) -> World:
    """The first `count` rows, at most all but two, scatter `times` as widely as the rest."""
    return normal(lambda rng, boards, k: np.where(np.arange(k) < min(count, max(k - 2, 1)), times, 1.0))


def inverse_chi2(df: float) -> World:
    """Variances df/χ²: what the model assumes."""
    return normal(lambda rng, boards, k: np.sqrt(df / rng.chisquare(df, size=(boards, k))))


def learned(chance: float, noise: float = 0.05) -> World:
    """All or nothing: a seed learns the task or does not."""
    return lambda rng, boards, k, n: (rng.random((boards, k, n)) < chance) + noise * rng.normal(size=(boards, k, n))


def accuracies(rng: Random, boards: int, k: int, n: int) -> Floats:
    """All or nothing within [0, 1], and at the top hardly any scatter."""
    shape = (boards, k, n)
    return np.where(rng.random(shape) < 0.5, 1 - 0.01 * rng.random(shape), 0.02 + 0.03 * rng.random(shape))


def still(rng: Random, boards: int, k: int, n: int) -> Floats:
    """A third of the rows, at least one, never move: all at the common mean."""
    noise = rng.normal(size=(boards, k, n))
    noise[:, : max(1, k // 3)] = 0
    return noise


def lacking(world: World) -> World:
    """The first row has two seeds only, where there are more."""

    def draw(rng: Random, boards: int, k: int, n: int) -> Floats:
        y = world(rng, boards, k, n)
        y[:, 0, 2:] = math.nan
        return y

    return draw


WORLDS: dict[str, World] = {
    "equal spreads": wide(0, 1),
    "variances 1.5/χ²(1.5)": inverse_chi2(1.5),
    "variances 4/χ²(4)": inverse_chi2(4),
    "half 1, half e": normal(lambda rng, boards, k: np.where(np.arange(k) < k // 2, 1, math.e)),
    "lognormal sd, log sd 1": normal(lambda rng, boards, k: np.exp(rng.normal(size=(boards, k)))),
    "strung out, 1 to 20": normal(lambda rng, boards, k: np.geomspace(1, 20, k)),
    "one scatters 5 times": wide(1, 5),
    "one scatters 20 times": wide(1, 20),
    "two scatter 20 times": wide(2, 20),
    "one calm, 1/20": wide(1, 0.05),
    "half calm, 1/20": normal(lambda rng, boards, k: np.where(np.arange(k) < k // 2, 0.05, 1)),
    "one row has two seeds": lacking(wide(0, 1)),
    "one row has two seeds, and scatters 20 times": lacking(wide(1, 20)),
    "a third never move": still,
    "learned on half of the seeds": learned(1 / 2),
    "learned on a third": learned(1 / 3),
    "learned on nine of ten": learned(0.9),
    "learned on half, accuracies": accuracies,
    "t with 3 df": lambda rng, boards, k, n: rng.standard_t(3, size=(boards, k, n)),
    "exponential": lambda rng, boards, k, n: rng.exponential(size=(boards, k, n)),
    "lognormal noise": lambda rng, boards, k, n: np.exp(rng.normal(size=(boards, k, n))),
    "rounded to whole sd": lambda rng, boards, k, n: np.round(rng.normal(size=(boards, k, n))),
}


def _rng(*key: int | str) -> Random:
    return np.random.default_rng([sum(ord(c) * 31**i for i, c in enumerate(str(part))) % 2**32 for part in key])


@cache
def error(world: str, method: str, k: int, n: int, boards: int) -> float:
    """Share of boards of equal rows with any pair separated."""
    return float(METHODS[method](WORLDS[world](_rng(world, k, n), boards, k, n)).any(1).mean())


def errors_beside_others(boards: int) -> Iterable[list[str]]:
    """By all methods, at 8 rows of 3 seeds."""
    for world in WORLDS:
        methods = {"ours"} if "two seeds" in world else {*METHODS}
        yield [world, *(_short(error(world, m, 8, 3, boards)) if m in methods else "–" for m in METHODS)]


SIZES = [(2, 3), (3, 3), (5, 3), (14, 3), (8, 2), (8, 5), (8, 10)]
"""Rows and seeds."""


def errors_by_size(boards: int) -> Iterable[list[str]]:
    """Ours at other sizes of the board."""
    for world in ("equal spreads", "variances 1.5/χ²(1.5)", "half 1, half e", "one scatters 20 times",
                  "learned on half of the seeds", "learned on nine of ten", "rounded to whole sd"):  # fmt: skip
        yield [world, *(_short(error(world, "ours", k, n, boards)) for k, n in SIZES)]


CASES = ((3, 3, 6), (5, 3, 4), (8, 3, 4), (8, 3, 10), (14, 3, 4), (8, 5, 3), (8, 10, 2), (8, 2, 10), (45, 2, 10))


def power(boards: int) -> Iterable[list[str]]:
    """How often a pair is separated of which one is better by so many sd, the others being equal."""
    for world in ("equal spreads", "variances 1.5/χ²(1.5)", "one scatters 20 times"):
        for k, n, difference in CASES:
            count = boards if (k, n) == (8, 3) else boards // (8 if k < 20 else 40)
            y = WORLDS[world](_rng("power", world, k, n), count, k, n)
            y[:, -1] += difference
            first, second = np.triu_indices(k, 1)
            pairs = (second == k - 1) & ((first > 0) | ("20" not in world))
            seen = [_short(float(method(y)[:, pairs].mean())) for method in METHODS.values()]
            yield [world, str(k), str(n), f"{difference} sd", *seen]


def smallest(boards: int) -> Iterable[list[str]]:
    """How often a planted difference of the printed size is found on a fresh board with the same spreads."""
    for world in ("equal spreads", "variances 4/χ²(4)", "variances 1.5/χ²(1.5)"):
        line = [world]
        for k, n in ((3, 3), (8, 3), (8, 5), (8, 2)):
            both = WORLDS[world](_rng("smallest", world, k, n), boards, k, 2 * n)
            fresh = both[:, :, n:]
            fresh[:, 0] += np.array([verdict.smallest for verdict in judged(both[:, :, :n])])[:, None]
            line.append(_short(float(ours(fresh)[:, : k - 1].mean())))
        yield line


def coverage(boards: int) -> Iterable[list[str]]:
    """How often the interval of a mean covers it: of the first row, and of all rows."""
    for world in ("equal spreads", "variances 1.5/χ²(1.5)", "one scatters 5 times", "one scatters 20 times"):
        line = [world]
        for n in (2, 3, 5):
            y = WORLDS[world](_rng("coverage", world, n), boards, 8, n)
            covered = np.abs(y.mean(2)) <= np.array([verdict.half for verdict in judged(y)])
            line.append(f"{_short(float(covered[:, 0].mean()))} / {_short(float(covered.mean()))}")
        yield line


# Seeds that are added: boards of (rows, most).

ADDED = SeedRule(3, 10, "separated")
WIDTH = SeedRule(3, 10, 0.8)
SPREADS = ("equal spreads", "variances 1.5/χ²(1.5)")
ORDERS: dict[str, Sequence[float]] = {
    "gaps of 2 sd": [2.0] * 11,
    "gaps of 3 sd": [3.0] * 11,
    "gaps of 4 sd": [4.0] * 11,
    "gaps of 8 sd, one of 2": [8.0] * 5 + [2.0] + [8.0] * 5,
    "gaps of 8 sd, three of 2": [8.0, 2.0, 8.0, 8.0] * 2 + [8.0, 2.0, 8.0],
    "gaps of 8 sd, half of the rows tied": [0.0] * 5 + [8.0] * 6,
}
"""The gaps between 12 rows."""
SCREEN, CLEAR = 300, 0.05
"""Few draws show of most boards of equal rows that they separate nothing: no p value is below this."""


def errors_over_looks(boards: int) -> Iterable[list[str]]:
    """Boards of 12 equal rows with any pair separated at any look of a rule; and after the last, without looks."""
    for world in SPREADS:
        y = WORLDS[world](_rng("looks", world), boards, 12, ADDED.most)
        found = np.mean([_errs(board, number) for number, board in enumerate(y)])
        widths = [_added(board, WIDTH, SCREEN) for board in y[: boards // 2]]
        wrong = np.mean([_compare(_seen(board, has), WIDTH, 4 * DRAWS).separated != frozenset()
                         for board, has in zip(y, widths, strict=False)])  # fmt: skip
        yield [world, _short(float(found)), _short(float(wrong))]


def _errs(board: Floats, number: int) -> bool:
    """Until any pair of equal rows is separated all neighbours are undecided, and every row gets every seed."""
    looks = (board[:, :n] for n in range(ADDED.start, ADDED.most + 1))
    unsure = (y for y in looks if judge(y, draws=SCREEN, seed=number).p.min() <= CLEAR)
    return any(judge(y, level_of(ADDED), seed=number).apart.any() for y in unsure)


def savings(boards: int) -> Iterable[list[str]]:
    """Runs by the rule, beside the equal seeds that separate as many of the neighbours that differ."""
    for order, gaps in ORDERS.items():
        for world in SPREADS:
            y = WORLDS[world](_rng("added", order, world), boards, 12, ADDED.most)
            y += np.cumsum([0.0, *gaps])[:, None]
            added = [_added(board, ADDED) for board in y]
            runs, share = float(np.mean([has.sum() for has in added])), _neighbours(y, added, level_of(ADDED), gaps)
            seeds = np.arange(ADDED.start, ADDED.most + 1)
            fixed = [_neighbours(y, [np.full(12, n)] * boards, LEVEL, gaps) for n in seeds]
            reached, first = np.unique(np.maximum.accumulate(fixed), return_index=True)
            equal = 12 * float(np.interp(share, reached, seeds[first]))
            sign = ">" if share > max(fixed) else "<" if share < fixed[0] else ""
            yield [order, world, f"{runs:.0f}", _short(share), f"{sign}{equal:.0f}", f"{runs / equal:.0%}"]


def _added(board: Floats, rule: SeedRule, draws: int = DRAWS) -> Floats:
    """(rows,): how many seeds each row has in the end."""
    rows = [f"{row:02}" for row in range(len(board))]

    def compare_all(runs: Sequence[tuple[str, int]]) -> Comparison:
        has = np.array([sum(row == name for name, _ in runs) for row in rows])
        return _compare(_seen(board, has), rule, draws)

    now = follow(rule, rows, lambda row, seed: (row, seed), compare_all)
    return np.array([now.has[row] for row in rows])


def _seen(board: Floats, has: Floats) -> dict[str, dict[int, float]]:
    """The scores of the first seeds of each row."""
    rows = enumerate(zip(board, has, strict=True))
    return {f"{row:02}": dict(enumerate(y[: int(n)].tolist())) for row, (y, n) in rows}


def _compare(scores: dict[str, dict[int, float]], rule: SeedRule, draws: int) -> Comparison:
    return compare(scores, higher_is_better=False, level=level_of(rule), draws=draws)


def _neighbours(y: Floats, added: Sequence[Floats], level: float, gaps: Sequence[float]) -> float:
    """How many of the neighbours that differ are separated with these seeds."""
    pairs = {(f"{i:02}", f"{i + 1:02}") for i, gap in enumerate(gaps) if gap}
    found = [compare(_seen(board, has), higher_is_better=False, level=level, draws=DRAWS).separated
             for board, has in zip(y, added, strict=True)]  # fmt: skip
    return float(np.mean([len(pairs & own) for own in found])) / len(pairs)


def _short(share: float) -> str:
    return f"{share:.3f}".lstrip("0") if share < 1 else "1"


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table, printed line by line as it is made."""
    text = []
    for line in chain([heads, ["---", *["--:"] * (len(heads) - 1)]], lines):
        text.append("| " + " | ".join(line) + " |")
        print(text[-1], flush=True)
    return "\n".join(text)


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--boards", type=int, default=4000)
    asked = parser.parse_args()
    boards, fewer = asked.boards, asked.boards // 8
    noise, less = (math.sqrt(0.0475 / count) for count in (boards, fewer))
    parts = [
        f"{boards} simulated boards a case in the first table and for the power of 8 × 3, {fewer} elsewhere (45 × 2: "
        f"{boards // 40}): a share of .050 has a standard error of {noise:.4f} and {less:.4f}. {DRAWS} draws a board.",
        "### False separations",
        "Boards of 8 equal rows of 3 seeds with any pair separated.",
        table(["world", *METHODS], errors_beside_others(boards)),
        "Ours at other sizes, rows × seeds.",
        table(["world", *(f"{k} × {n}" for k, n in SIZES)], errors_by_size(fewer)),
        "### Power",
        "One row is better than all others: how often it is separated from one of them (the wild one aside).",
        table(["world", "rows", "seeds", "difference", *METHODS], power(boards)),
        "### The printed smallest difference",
        "How often it is found, planted on a fresh board of the same world, rows × seeds. .80 is meant.",
        table(["world", "3 × 3", "8 × 3", "8 × 5", "8 × 2"], smallest(fewer)),
        "### Intervals",
        "How often the 95% interval of a mean covers it at 8 rows: of the first row (the wild one) / of all rows.",
        table(["world", "2 seeds", "3 seeds", "5 seeds"], coverage(fewer)),
        "### Adding seeds",
        f"12 equal rows, {ADDED.start} to {ADDED.most} seeds, {boards // 2} boards: any pair separated at any look "
        f"`until: separated`; of half as many, in the end `until: {WIDTH.until}` (sd).",
        table(["world", "until: separated", f"until: {WIDTH.until}"], errors_over_looks(boards // 2)),
        f"12 planted rows, {boards // 100} boards: runs by the rule, how many of the neighbours that differ it "
        "separates, and the runs of equal seeds, judged once at the whole level, that separate as many.",
        table(["order", "spreads", "runs", "separated", "equal seeds", "share"], savings(boards // 100)),
    ]
    before = asked.file.read_text(encoding="utf-8").partition(MARK)[0] if asked.file.exists() else ""
    asked.file.write_text(before + MARK + "\n\n" + "\n\n".join(parts) + "\n", encoding="utf-8")
    print(f"wrote {asked.file}")


if __name__ == "__main__":
    main()

"""What a leaderboard takes on clusters that fail: the table of docs/scale.md, computed and not measured.

    python benchmarks/cluster_queue.py FILE

7,200 runs (60 architectures × 8 tasks × 3 rates × 5 seeds) of an hour on average, as unequal as the published runs of
suite `zoo`, go through the queue of `zoobench plan`. Writes the table below the line <!-- computed --> of FILE.
"""

import random
import sys
from pathlib import Path

import harness
from harness.execute.queue import simulate

ROOT = Path(__file__).parents[1]
MARK, END = "<!-- computed -->\n", "<!-- end -->"
RUNS, HOUR = 60 * 8 * 3 * 5, 3600.0


def table() -> str:
    """The table in Markdown."""
    known = harness.results("zoo", ROOT / "results").query("status == 'ok'").seconds.tolist()
    drawn = random.Random(0).choices(known, k=RUNS)
    works = [HOUR * seconds * RUNS / sum(drawn) for seconds in drawn]
    rows = [
        "| GPUs | failures of a GPU | wall time | in use | GPU hours lost | runs given up |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for slots in (8, 64, 512, 10_000):
        for rate, name in ((0.0, "none"), (0.1, "one in 10 h"), (1.0, "one an hour")):
            queue = simulate([works], slots, start=60.0, failures=rate / HOUR, checkpoint=20.0, retries=2)
            share = queue.busy / (queue.wall * slots)
            figures = f"{queue.wall / HOUR:,.1f} h | {share:.0%} | {queue.lost / HOUR:,.1f} | {queue.lost_runs}"
            rows.append(f"| {slots:,} | {name} | {figures} |")
    return "\n".join([*rows, f"\nThe longest run takes {max(works) / HOUR:.1f} h."])


if __name__ == "__main__":
    page = Path(sys.argv[1])
    before, _, rest = page.read_text(encoding="utf-8").partition(MARK)
    page.write_text(f"{before}{MARK}\n{table()}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")

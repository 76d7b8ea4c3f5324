"""Put the tables of results/quick/board.md between the markers of README.md (text alone) and docs/results.md.

python benchmarks/quick_tables.py
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DROPPED = ("time", "× ref", "memory", "state")
"""Columns that the printed tables leave out."""
NOTES = ("smallest difference", "scattered", "identical data")
"""Beginnings of the notes that stay."""


def sections(board: str) -> list[str]:
    """The parts of a board in Markdown that are about one task."""
    return [part for part in re.split(r"^## ", board, flags=re.M)[1:] if "\n| rank |" in part]


def table(section: str) -> str:
    """A task's table as `zoobench board` prints it, with its metric above."""
    task, metric = section.split("\n\n")[:2]
    lines = [line for line in section.splitlines() if line.startswith("|") and not line.startswith("|--")]
    rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in lines]
    kept = [i for i, name in enumerate(rows[0]) if name not in DROPPED]
    rows = [[row[i] for i in kept] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(kept))]
    aligned = [[cell.ljust(w) if i == 1 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
               for row in rows]  # fmt: skip
    texts = [f" {'  '.join(cells)}".rstrip() for cells in aligned]
    texts.insert(1, f" {'─' * (len(texts[0]) - 1)}")
    return "\n".join([f"{task}  {metric}", "", *texts])


def notes(section: str) -> str:
    """What was held equal, and the notes that stay."""
    equal = re.search(r"^Held equal: (.*)\.$", section, flags=re.M)
    found = [f"held equal: {equal[1]}"] if equal else []
    found += [line[2:] for line in section.splitlines() if line.startswith("- ") and line[2:].startswith(NOTES)]
    return "\n".join(f"  · {note}" for note in found)


def put(file: Path, text: str) -> None:
    """Replace what stands between the markers of a page."""
    page = file.read_text(encoding="utf-8")
    begin, end = "<!-- quick: begin -->", "<!-- quick: end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    file.write_text(f"{before}{begin}\n\n```\n{text}\n```\n\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Write both pages."""
    found = sections((ROOT / "results" / "quick" / "board.md").read_text(encoding="utf-8"))
    put(ROOT / "README.md", table(found[0]))
    put(ROOT / "docs" / "results.md", "\n\n".join(f"{table(part)}\n\n{notes(part)}" for part in found))


if __name__ == "__main__":
    main()

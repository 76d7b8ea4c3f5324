"""The tables of a board for a paper, in LaTeX with booktabs."""

import re
from collections.abc import Iterable, Sequence

from harness.board.model import Board, TaskBoard
from harness.board.sections import sections
from harness.board.tables import Cell, Column, Line, Section
from harness.errors import printable
from harness.stats import LEVEL
from harness.table.rows import Row

ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}", "'": "{'}", "`": r"\textasciigrave{}", '"': r"\char34{}",
    "–": r"\textendash{}", "—": r"\textemdash{}", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "−": "$-$",
    "∞": r"$\infty$", "→": r"$\to$", "≤": r"$\leq$", "≥": r"$\geq$", "τ": r"$\tau$", "χ": r"$\chi$",
    "²": r"\textsuperscript{2}", "�": "?",
}  # fmt: skip
"""Signs that mean something to LaTeX, and those of our own that pdfLaTeX lacks."""


def escape(text: str) -> str:
    """Plain text for LaTeX, on one line. Letters beyond Latin need XeLaTeX or LuaLaTeX."""
    shown = "".join(ESCAPES.get(character, character) for character in " ".join(printable(text).split()))
    return re.sub("-(?=-)", "-{}", shown)  # two are no dash


def latex(board: Board) -> str:
    """A `table` for every section of a board that has rows; the preamble needs booktabs."""
    head = rf"% {printable(board.suite)}, by zoobench. Needs \usepackage{{booktabs}}."
    return "\n\n".join([head, *(table(section) for section in sections(board) if section.lines)]) + "\n"


def table(section: Section) -> str:
    """A section as a `table`: its main columns, the best row bold, ties with it marked, and what the rows share."""
    shown = [i for i, column in enumerate(section.columns) if not column.optional]
    columns, marks = [section.columns[i] for i in shown], _marks(section)
    body = [_line(line, [line.cells[i] for i in shown], columns, marks) for line in section.lines]
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\caption{{{_caption(section)}}}",
        rf"\begin{{tabular}}{{{''.join('l' if column.left else 'r' for column in columns)}}}", r"\toprule",
        " & ".join(escape(column.title) for column in columns) + r" \\", r"\midrule", *body, r"\bottomrule",
        r"\end{tabular}", r"\end{table}",
    ])  # fmt: skip


def _marks(section: Section) -> dict[str, tuple[str, str]]:
    """The patterns of the name and the score of a row: of the best, and of those not separated from it."""
    ranked = section.subject.ranked if isinstance(section.subject, TaskBoard) else []
    ties = [row for row in ranked[1:] if not row.separated_from(ranked[0])]
    best = {row.architecture: (r"\textbf{{{}}}", r"\textbf{{{}}}") for row in ranked[:1]}
    return best | {row.architecture: ("{}", r"{}$^\dagger$") for row in ties}


def _line(line: Line, cells: Sequence[Cell], columns: Sequence[Column], marks: dict[str, tuple[str, str]]) -> str:
    """A row; names stand in the first column that is aligned left, and scores in the next."""
    at = next((i for i, column in enumerate(columns) if column.left), 0)
    name, score = {"baseline": (r"\textit{{{}}}",) * 2, "ranked": marks.get(cells[at].text)}.get(line.kind) or (
        "{}",
        "{}",
    )
    patterns = {at: name, at + 1: score}
    return " & ".join(patterns.get(i, "{}").format(escape(cell.text)) for i, cell in enumerate(cells)) + r" \\"


def _caption(section: Section) -> str:
    board = section.subject
    if not isinstance(board, TaskBoard):
        return f"{_sentence(section.title)}: {escape(section.about)}."
    said = [f"{escape(board.title)}: {escape(board.direction)}."]
    said += [f"Held equal: {escape(board.equal)}."] if board.equal else []
    said += [_seeds(board.ranked)] if board.ranked else []
    if len(board.ranked) > 1 and board.ranked[0].letters:
        said.append(
            r"Bold: the best mean; $\dagger$: not separated from it. All pairs are judged at once by a step-down "
            rf"maximum-$t$ test with moderated variances, family-wise error {LEVEL:.0%}.".replace("%", r"\%")
        )
    said += ["Italic: baselines without training."] if board.lines else []
    said += ["Rows without a rank are not compared."] if any(not row.ranked for row in board.rows) else []
    return " ".join(said)


def _seeds(rows: Iterable[Row]) -> str:
    counts = sorted({len(row.seeds) for row in rows})
    seeds = (
        "one seed"
        if counts == [1]
        else f"{counts[0]} seeds"
        if len(counts) == 1
        else f"{counts[0]}--{counts[-1]} seeds"
    )
    return f"Mean over {seeds} $\\pm$ half of its 95\\% interval." if counts != [1] else "One seed: no interval."


def _sentence(text: str) -> str:
    return escape(text[:1].upper() + text[1:])

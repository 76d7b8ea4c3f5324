"""Every format, with names, notes and options that would command a program which reads it."""

import csv
import io
import json
import re
import shutil
import subprocess
import unicodedata

import pytest
from rich.console import Console

from harness import board
from harness.board import formats, latex, tables
from harness.errors import printable
from harness.records.record import Override
from tests.harness.planted import plant

NASTY = {
    "html": "<script>alert('x')</script>&amp;",
    "quotes": "a\"b'c`d",
    "latex": r"\input{x}$_^~#%&{}|--?`",
    "markdown": "*a* _b_ [c](d) # ~~e~~ |f| $g$",
    "formula": '=HYPERLINK("x")',
    "plus": "+1+cmd",
    "minus": "-x",
    "at": "@SUM(1)",
    "heading": "# h",
    "terminal": "\x1b[31mred\x1b]0;title\x07\x9b2J",
    "lines": "one\ntwo\r\nthree\u2028four\tfive",
    "bidi": "abc\u202etxt\u2066\u200f.exe",
    "bracket": "[0pt]*",
}


def made_of(name):
    """A board on which a nasty text is an architecture, a reason, an about, a default and a baseline."""
    records = [
        plant(a, s, 2.0 + 0.01 * s + i, defaults=[Override(name, name, 1)])
        for i, a in enumerate((name, "plain"))
        for s in range(3)
    ]
    records += [plant("odd", s, 3.0, provenance__commit=name, data__stream_hash="") for s in range(3)]
    lines = [{"task_label": "text", "metric": "bits_per_byte", "name": name, "value": 2.5, "about": name}]
    return board.make("suite", records, lines, about=name)


def terminal(boards):
    console = Console(width=250, file=io.StringIO(), color_system=None)
    board.render(boards[0], console)
    return console.file.getvalue()


WRITERS = {"terminal": terminal, **formats.FORMATS}


def as_text(written):
    """What a format holds, with the cells of Parquet a line each."""
    if isinstance(written, str):
        return written
    from pyarrow import BufferReader, parquet

    return "\n".join(
        str(value) for row in parquet.read_table(BufferReader(written)).to_pylist() for value in row.values()
    )


@pytest.mark.parametrize("kind", NASTY)
@pytest.mark.parametrize("format", WRITERS)
def test_nothing_in_a_name_commands_a_terminal_or_breaks_a_line(format, kind):
    name = NASTY[kind]
    shown = as_text(WRITERS[format]([made_of(name)]))
    assert {unicodedata.category(c) for c in shown if c != "\n"} & {"Cc", "Cf", "Zl", "Zp"} == set()
    if kind in ("terminal", "bidi", "lines"):
        plain = {"terminal": "�[31mred�]0;title��2J", "bidi": "abc�txt��.exe", "lines": "one two  three four five"}[
            kind
        ]
        wanted = {"latex": latex.escape, "markdown": tables.escape}.get(format, str)(plain)
        assert wanted in shown


@pytest.mark.parametrize("kind", NASTY)
def test_every_table_keeps_its_shape_and_its_names(kind):
    name = NASTY[kind]
    made, plain = made_of(name), printable(name)
    records = list(csv.DictReader(io.StringIO(formats.as_csv([made]))))
    cell = records[0]["architecture"]
    assert len(records) == 5
    assert cell.removeprefix("'") == plain
    assert cell[0] not in "=+-@"
    assert [float(row["mean"]) for row in records if row["architecture"] == "plain"] == [pytest.approx(3.01)]
    assert json.loads(formats.as_json([made]))[0]["architecture"] == plain
    rows = [line for line in formats.markdown(made).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(re.findall(r"\|", rows[1]))}
    bodies = [line for line in latex.latex(made).splitlines() if line.endswith(r" \\")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in bodies}) == 1


def test_a_spreadsheet_computes_no_text_and_every_number():
    for text in ("=1+1", "+x", "-x", "@x", " =x", "\t=x", "＝x", "=1"):
        assert formats.csv_cell(text).startswith("'")
    for value in (-1.5, 0, None, "x=1", "-1.5 -2e-3", ""):
        assert formats.csv_cell(value) == value
    assert formats.csv_cell([-1.5, 2]) == "-1.5 2"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("pre_ln 5.0%", "pre_ln 5.0%"),
        ("# heading", r"\# heading"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("> quoted", r"\> quoted"),
        ("_a_ *b* $c$ ~~d~~", r"\_a\_ \*b\* \$c\$ \~\~d\~\~"),
        ("<b>&", "&lt;b>&amp;"),
    ],
)
def test_markdown_by_hand(text, written):
    assert tables.paragraph(text) == written


def test_parquet_keeps_the_types():
    from pyarrow import BufferReader, parquet

    made = made_of("a")
    found = parquet.read_table(BufferReader(formats.as_parquet([made]))).to_pylist()
    assert found[0]["seeds"] == [0, 1, 2]
    assert found[0]["mean"] == pytest.approx(2.01)
    assert [row["status"] for row in found] == [row["status"] for row in made.to_rows()]


def test_latex_marks_the_best_and_its_ties_and_says_what_was_equal(three, baselines):
    three = [r.replace(run_id=f"{r.spec.architecture}{r.spec.seed}") for r in three]
    shown = latex.latex(board.make("quick", three, baselines))
    assert r"1 & \textbf{lstm} & \textbf{2.000 $\pm$ " in shown
    assert r"$^\dagger$" not in shown.split(r"\midrule")[1], "lstm is ahead of both"
    without = latex.latex(board.make("quick", [r for r in three if r.spec.architecture != "lstm"], baselines))
    assert r"\textbf{s4d}" in without
    assert re.search(r"1\\textendash\{\}2 & pre\\_ln & 3\.020 \$\\pm\$ [\d.]+\$\^\\dagger\$", without)
    for wanted in (r"\toprule", "Held equal: 400k parameters without embeddings", "Mean over 3 seeds", "maximum-$t$"):
        assert wanted in shown


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex with booktabs")
def test_latex_compiles(tmp_path):
    body = "\n".join(latex.latex(made_of(name)) for name in NASTY.values())
    document = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + body + r"\end{document}"
    (tmp_path / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert made.returncode == 0, made.stdout[-2000:]

"""The board as one self-contained HTML page."""

from collections.abc import Iterable, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from harness.board import plots
from harness.board.drawing import Looks, styles
from harness.board.model import Aggregate, Board, Contrast, TaskBoard, TimeToTarget
from harness.board.ranking import table_of, unique
from harness.board.sections import sections
from harness.board.tables import Section
from harness.records.record import Record

ASIDE = "; dashed the reference; lines that coincide are drawn side by side"


def page(board: Board, records: Iterable[Record]) -> str:
    """The whole page as text."""
    ordered = unique(records)
    looks = styles(sorted({row.architecture for task in board.tasks for row in task.ranked}))
    template = jinja2.PackageLoader("harness", "board")
    options = {"autoescape": True, "undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = jinja2.Environment(loader=template, **options)  # type: ignore[arg-type]
    shown = [(section, _figures(section, ordered, looks)) for section in sections(board)]
    finals = [r for r in ordered if r.spec.kind == "final"]
    return environment.get_template("page.html.j2").render(board=board, sections=shown, provenance=provenance(finals))


def _figures(section: Section, records: Sequence[Record], looks: Looks) -> list[tuple[str, Markup]]:
    """The plots of a section that could be drawn, by caption."""
    subject, drawn = section.subject, {}
    if isinstance(subject, TaskBoard):
        drawn = _task(subject, [r for r in records if table_of(r) == (subject.task, subject.track)], looks)
    elif isinstance(subject, Contrast):
        drawn = {"The same as a picture": plots.track_ranks(subject, looks)}
    elif isinstance(subject, Aggregate):
        drawn = {
            f"Performance profile of normalised scores: higher is better{ASIDE}": plots.profile(subject, looks),
            "Mean ranks, best on the left; a bar joins what is not separated": plots.critical_difference(subject),
        }
    elif isinstance(subject, TimeToTarget):
        caption = f"Time to target: higher and further left is better{ASIDE}"
        drawn = {caption: plots.times(subject, looks, section.title)}
    return [(caption, Markup(svg)) for caption, svg in drawn.items() if svg]


def _task(board: TaskBoard, records: Sequence[Record], looks: Looks) -> dict[str, str]:
    trials = [r for r in records if r.spec.kind == "trial"]
    finals = [r for r in records if r.spec.kind == "final"]
    return {
        "Mean and 95% interval; ticks are seeds, dashed lines baselines": plots.dots(board, looks),
        "Learning curves, mean over seeds": plots.curves(board, finals, looks),
        "Score against cost, tuning included" if trials else "Score against cost": plots.cost(board, looks),
        "Expected best of k trials on the tuning split, drawn in any order": plots.best_of(board, trials, looks),
    }


def provenance(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Where the numbers come from; every distinct value of every field is listed."""
    ok = sum(r.status == "ok" for r in records)
    found = [("runs", f"{len(records)}, of which {ok} ok")]
    for name in ("zoobench", "commit", "hardware", "threads", "precision", "packages"):
        known = [getattr(r.provenance, name) for r in records]
        if values := sorted({_words(value) for value in known if value}):
            found.append((name, "; ".join(values)))
    for task in sorted({r.spec.task_label for r in records}):
        if prints := sorted({r.data.fingerprint for r in records if r.spec.task_label == task} - {""}):
            found.append((f"data of {task}", ", ".join(prints)))
    return found


def _words(value: Any) -> str:
    """Like "numpy 2.4, torch 2.9" of packages."""
    return ", ".join(map(" ".join, sorted(value.items()))) if isinstance(value, dict) else str(value)

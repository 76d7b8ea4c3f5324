"""Write the site into a folder: the front page, a page for each suite, architecture and row, and the comparison."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from altair.utils.schemapi import debug_mode

from harness.board import charts
from harness.board.looks import looks
from harness.board.model import TaskBoard
from harness.board.sections import sections
from harness.board.tables import Note, Section
from harness.board.verdicts import sentences
from harness.catalog import entries as catalog
from harness.claims.verdict import Judged
from harness.errors import UserError
from harness.processes import no_collection
from harness.records.files import write_page
from harness.records.store import Store, default_root
from harness.site import architecture_pages, claim_pages, compare, front_page, run_pages, speed_page
from harness.site.assets import write_assets
from harness.site.front import matrix
from harness.site.parts import as_yaml, figure, provenance, suite_page
from harness.site.suites import Suite, read_suites
from harness.site.views import TableView, section_view, slug, write_downloads
from harness.version import __version__

MARK = ".zoobench-site"
"""The file that tells a folder that this module made, whose pages it may replace."""
MOST_LINES, SHOWN = 2000, 100
"""A page whose tables have more lines than MOST_LINES shows SHOWN of each: beyond, browsers take seconds to open it."""
FOLDERS = ("suites", "runs", "claims", "architectures", "downloads", "assets")


@no_collection()
def build(folder: Path, names: Sequence[str] = (), root: Path | None = None, *, live: bool = False) -> list[Suite]:
    """Make the site of the named suites, or of all with results; returns the suites on it.

    Args:
        live: pages look every two seconds whether they were made anew.

    Raises:
        UserError: there are no results, or the folder holds something else.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise UserError("holds other files; name an empty or new folder", file=folder)
    root = root or default_root()
    if not folder.exists() and Store(folder.name, root).ids():
        raise UserError(f"is a suite's name; name a folder before it: zoobench site site {folder}", file=folder)
    suites, problems = read_suites(names, root)
    speeds, damaged = speed_page.read(root)
    claims, unread = claim_pages.read(root)
    write_page(folder, MARK, "")
    (folder / "speed.html").unlink(missing_ok=True)  # which not every site has
    for old in FOLDERS:
        shutil.rmtree(folder / old, ignore_errors=True)
    write_assets(folder)
    Site(folder, suites, problems + damaged + unread, speeds, claims, live).write()
    write_page(folder, "version.txt", str(time.time_ns()))
    return suites


class Site:
    """What all pages share."""

    def __init__(
        self,
        folder: Path,
        suites: list[Suite],
        problems: list[str],
        speeds: list[dict[str, Any]],
        claims: list[Judged],
        live: bool,
    ) -> None:
        self.folder, self.suites, self.problems, self.speeds, self.live = folder, suites, problems, speeds, live
        self.claims = claims
        self.matrix = matrix(suites)
        self.known = {row["name"]: row for row in catalog.rows("architectures")}
        self.pages = {name: f"architectures/{slug(name)}.html" for name in self.known}

    def write(self) -> None:
        """Write every page."""
        self.page("index.html", "index.html.j2", **front_page.context(self))
        if self.speeds:
            self.page("speed.html", "speed.html.j2", **speed_page.context(self, self.speeds))
        for suite in self.suites:
            self._suite(suite)
            for page, context in run_pages.pages(self, suite):
                self.page(page, "run.html.j2", **context)
        for page, template, context in (*architecture_pages.pages(self), *claim_pages.pages(self)):
            self.page(page, template, **context)
        write_page(
            self.folder,
            "assets/boards.js",
            f"window.boards = JSON.parse({json.dumps(json.dumps(compare.boards(self)))});\n",
        )
        self.page("compare.html", "compare.html.j2", names=compare.names(self), columns=compare.COLUMNS)

    @cached_property
    def _templates(self) -> jinja2.Environment:
        return jinja2.Environment(
            loader=jinja2.PackageLoader("harness.site"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def page(self, path: str, template: str, **context: Any) -> None:
        """Write one page; `path` is relative to the site."""
        links = [{"name": suite.name, "href": suite_page(suite)} for suite in self.suites]
        shared = {"up": "../" * path.count("/"), "version": __version__, "site_title": "zoobench", "live": self.live}
        shared |= {"speed": bool(self.speeds), "claims": bool(self.claims)}
        text = self._templates.get_template(template).render({"suites": links, **shared, **context})
        write_page(self.folder, path, text)

    def downloads(self, view: TableView, place: str, up: str) -> TableView:
        """Write a table's downloads into `downloads/<place>`."""
        return write_downloads(view, self.folder, f"downloads/{place}", up)

    def _suite(self, suite: Suite) -> None:
        known = sections(suite.board)
        most = SHOWN if sum(len(section.lines) for section in known) > MOST_LINES else MOST_LINES
        views = [self._view(suite, section, most) for section in known]
        self.page(
            suite_page(suite),
            "suite.html.j2",
            suite={
                "name": suite.name,
                "about": suite.board.about.strip(),
                "command": shlex.join(["zoobench", "run", f"{suite.name}.yaml", "--ignore-published"]),
            },
            verdicts=sentences(suite.board),
            board_notes=[{"text": note, "name": ""} for note in [*suite.board.notes, *_without_pages(suite)]],
            looks=looks(row.architecture for task in suite.board.tasks for row in task.rows),
            views=views,
            defaults=[(name, "; ".join(own) or "nothing") for name, own in suite.board.defaults.items()],
            provenance=provenance(suite.finals)
            + [(name, f"sha256 {known}") for name, known in suite.published.items()],
            yaml=as_yaml(suite.described.get("text")),
        )

    def _view(self, suite: Suite, section: Section, most: int) -> TableView:
        def run_page(task: TaskBoard, architecture: str) -> str:
            return "../" + run_pages.address(suite, architecture, task.title) if suite.run_pages else ""

        shown = section
        if len(section.lines) > most:
            more = Note(f"the first {most} of {len(section.lines)} lines; the downloads have all")
            shown = replace(section, lines=section.lines[:most], notes=[more, *section.notes])
        view = section_view(shown, run_page, suite.runs)
        task = section.subject
        records = suite.tables.get((task.task, task.track), []) if isinstance(task, TaskBoard) else []
        with debug_mode(False):  # tests check the charts against Vega-Lite's schema; here that takes half of the time
            drawn = charts.of(section, suite.board, records)
            figures = [figure(f"{view.id}:{chart.name}", chart.caption, chart.chart) for chart in drawn]
        view = replace(view, charts=figures)
        if not section.columns:
            return view
        return replace(self.downloads(replace(view, section=section), slug(suite.name), "../"), section=shown)


def _without_pages(suite: Suite) -> list[str]:
    """What stands on a suite's page where its rows have none."""
    query = shlex.join(["zoobench", "query", f"SELECT * FROM records WHERE suite = '{suite.name}'"])
    return [] if suite.run_pages else [f"too many rows for a page about the runs of each; they are all in: {query}"]

"""The scripts and styles of the site: Vega-Lite and DataTables from their packages, and little glue of our own."""

import importlib.resources
import json
from pathlib import Path

from harness.board.looks import theme
from harness.records.files import write_atomic


def write_assets(folder: Path) -> None:
    """Write every script and style that pages link to."""
    own = importlib.resources.files("harness.site") / "static"
    tables = importlib.resources.files("itables") / "html"
    write_atomic(folder / "site.css", (own / "site.css").read_text(encoding="utf-8"))
    themes = json.dumps({"light": theme(), "dark": theme(dark=True)})
    write_atomic(folder / "site.js", f"const themes = {themes};\n" + (own / "site.js").read_text(encoding="utf-8"))
    write_atomic(folder / "tables.css", (tables / "dt_bundle.css").read_text(encoding="utf-8"))
    # a module cannot be loaded by address where pages are opened as files, so it is carried as text
    bundle = json.dumps((tables / "dt_bundle.js").read_text(encoding="utf-8"))
    module = f'URL.createObjectURL(new Blob([{bundle}], {{type: "text/javascript"}}))'
    write_atomic(folder / "tables.js", f"window.dataTables = import({module});\n")
    if not (folder / "vega.js").exists():  # bundling takes seconds
        write_atomic(folder / "vega.js", _vega())


def _vega() -> str:
    import vl_convert

    bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    return f"(() => {{{bundle}}})();\n"

"""The scripts and styles of the site: Vega-Lite and DataTables from their packages, and little glue of our own."""

import importlib.resources
import json
from contextlib import suppress
from pathlib import Path

from harness.board.looks import theme
from harness.records.files import write_page
from harness.version import installed
from zoo import cache, files


def write_assets(site: Path) -> None:
    """Write every script and style that pages link to, in `assets`."""
    own = importlib.resources.files("harness.site") / "static"
    tables = importlib.resources.files("itables") / "html"
    write_page(site, "assets/site.css", (own / "site.css").read_text(encoding="utf-8"))
    themes = json.dumps({"light": theme(), "dark": theme(dark=True)})
    write_page(site, "assets/site.js", f"const themes = {themes};\n" + (own / "site.js").read_text(encoding="utf-8"))
    write_page(site, "assets/tables.css", (tables / "dt_bundle.css").read_text(encoding="utf-8"))
    # a module cannot be loaded by address where pages are opened as files, so it is carried as text
    bundle = json.dumps((tables / "dt_bundle.js").read_text(encoding="utf-8"))
    module = f'URL.createObjectURL(new Blob([{bundle}], {{type: "text/javascript"}}))'
    write_page(site, "assets/tables.js", f"window.dataTables = import({module});\n")
    write_page(site, "assets/vega.js", f"(() => {{{_vega()}}})();\n")


def _vega() -> str:
    """The bundle of Vega-Lite, kept in the user's cache, as it takes seconds to make."""
    import vl_convert

    kept = cache.home() / f"vega-{installed('vl-convert-python')}.js"
    with suppress(OSError, RuntimeError, UnicodeDecodeError):
        return files.read_text(kept.expanduser())
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    with suppress(OSError, RuntimeError):
        files.write(kept.expanduser(), bundle, sync=False)
    return bundle

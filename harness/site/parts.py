"""What several pages show: charts, plain data as YAML, and where numbers come from."""

import json
from collections.abc import Iterable
from typing import Any

import altair as alt
import yaml
from markupsafe import Markup

from harness.records.record import Record
from harness.site.suites import Suite
from harness.site.views import slug
from harness.table.comparable import grouped


def suite_page(suite: Suite) -> str:
    """The address of a suite's page."""
    return f"suites/{slug(suite.name)}.html"


def figure(name: str, caption: str, chart: alt.LayerChart | dict[str, Any]) -> dict[str, Any]:
    """A chart for a template."""
    spec = chart if isinstance(chart, dict) else chart.to_dict(validate=False)
    about = {"id": name, "caption": caption, "description": spec.get("description", caption)}
    return about | {"spec": Markup(script_json({key: value for key, value in spec.items() if key != "config"}))}


def script_json(data: Any) -> str:
    """JSON that can stand inside of a script element, whatever its texts say."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def as_yaml(data: Any) -> str:
    """Plain data as YAML; empty for none."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True) if data else ""


def provenance(records: Iterable[Record]) -> list[tuple[str, str]]:
    """Where the numbers come from; every distinct value of every field is listed."""
    known = list(records)
    statuses = sorted({record.status for record in known})
    counts = ", ".join(f"{sum(r.status == status for r in known)} {status}" for status in statuses)
    found = [("runs", f"{len(known)}: {counts}")]
    made = list({id(record.provenance): record.provenance for record in known}.values())
    for name in ("zoobench", "commit", "hardware", "device", "threads", "precision", "packages", "kernels"):
        values = sorted({_words(value) for one in made if (value := getattr(one, name))})
        found += [(name, "; ".join(values))] if values else []
    origins = sorted({" by ".join(filter(None, (r.origin.kind, r.origin.contributor))) for r in known})
    found.append(("answered for", "; ".join(origins)))
    for task, data in sorted(grouped({(r.spec.task_label, r.data.fingerprint): None for r in known}).items()):
        if prints := sorted({*data} - {""}):
            found.append((f"data of {task}", ", ".join(prints)))
    return found


def _words(value: Any) -> str:
    """Like "numpy 2.4, torch 2.9" of packages."""
    return ", ".join(map(" ".join, sorted(value.items()))) if isinstance(value, dict) else str(value)

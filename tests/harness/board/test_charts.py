"""Charts as Vega draws them: what stands where, that odd names are names, and that all answer to `row`."""

import itertools
import json
import random
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import vl_convert

from harness import board
from harness.board import charts, export, pareto, task_charts
from harness.board.looks import DASHES, OKABE_ITO, SHAPES, Frame, looks, theme
from harness.board.model import TaskBoard
from harness.board.sections import sections
from harness.records.record import CurvePoint
from harness.records.spec import Search
from harness.stats import aggregate as stats
from tests.harness.planted import change, plant

NAMES = ("lstm", '<script>alert("1")</script>', "a.b[0]\\'c'", "$x_1^2$ datum.row")
"""An ordinary name, and some that mean something to HTML, to Vega and to LaTeX."""


def planted():
    """Every chart has something to draw: two tasks, two tracks of the first, trials, states and two costs."""
    records = []
    for i, name in enumerate(NAMES):
        size = {"size__state_bytes": 1000 * (i + 1), "budget__used__flops": 10**12 * (4 - i)}
        size |= {"speed__decode_seconds": 1e-3 * (i + 1), "speed__latency_seconds": 1e-3 * (4 - i)}
        for task, track in (("text", "one"), ("text", "two"), ("other", "one")):
            own = {"spec__task": task, "spec__task_label": task, "spec__track": track, **size}
            for seed in range(3):
                run_id = f"{i}-{task}-{track}-{seed}"
                records.append(plant(name, seed, 2.0 + 0.2 * i + 0.01 * seed, run_id=run_id, **own))
            for trial, lr in enumerate((1e-3, 3e-3, 1e-2)):
                more = {"spec__kind": "trial", "spec__train__lr": lr, "run_id": f"{i}-{task}-{track}-trial-{trial}"}
                tried = {"spec__tuning": Search("tpe", {"lr": {"low": 1e-4, "high": 1e-1, "log": True}}, trial)}
                records.append(plant(name, 1000, 2.5 + abs(trial - 1) + 0.1 * i, **own, **more, **tried))
    return records


@pytest.fixture(scope="module")
def drawn():
    """Every chart of a board, by name, as a specification."""
    records = planted()
    made = board.make("nasty", records, [{"task_label": "other", "name": "xz<b>", "value": 2.1, "about": ""}])
    every = [c for section in sections(made) for c in charts.of(section, made, records, width=400, legend=True)]
    return {chart.name: chart.chart.to_dict() for chart in reversed(every)}


def svg(spec, row=None):
    """What Vega draws with the signal `row` set."""
    spec = json.loads(json.dumps(spec))
    next(param for param in spec["params"] if param["name"] == "row")["value"] = row
    return vl_convert.vegalite_to_svg(spec)


def rows_of(spec, *fields):
    """The tables of a chart that have these fields, as one list."""
    return [row for rows in spec["datasets"].values() for row in rows if {*fields} <= row.keys()]


@pytest.mark.parametrize("name", charts.CHARTS)
def test_every_chart_is_drawn_with_odd_names_and_answers_to_row(drawn, name):
    spec = drawn[name]
    assert "title" not in spec
    assert len(spec["description"]) > 20
    texts = {"".join(node.itertext()) for node in ElementTree.fromstring(svg(spec)).iterfind(".//{*}text")}
    assert any(NAMES[1] in text for text in texts), "as text"
    assert not re.search("#(000|fff)|black|white", json.dumps({**spec, "datasets": {}}))

    def faint(row):
        """The labels of marks that are faint, which are their tooltips."""
        marks = re.findall(r"<[^>]*graphics-symbol[^>]*>", svg(spec, row))
        return [mark for mark in marks if (own := re.search(r' opacity="([^"]*)"', mark)) and 0 < float(own[1]) <= 0.1]

    assert faint(None) == []
    others = faint(NAMES[2])
    assert others
    assert not any("a.b[0]" in mark for mark in others)
    assert any("lstm" in mark for mark in others)


def test_nothing_to_draw_is_no_chart(three):
    one = [r for r in three if r.spec.architecture == "lstm"]
    made = board.make("thin", one, [])
    bare = [change(r, curve=[]) for r in one]
    assert [c.name for c in charts.of(sections(made)[0], made, bare)] == ["dots"]
    refused = [plant("a", 0, status="unsupported")]
    made = board.make("none", refused, [])
    assert charts.of(sections(made)[0], made, refused) == []


def test_looks_depend_on_the_names_alone_and_differ():
    names = [f"architecture {i}" for i in range(49)]
    known = looks(names)
    assert known == looks(random.Random(1).sample(names, 49))
    assert len({(look.colour, look.shape) for look in known.values()}) == 49
    assert len({(look.colour, *look.dash) for look in list(known.values())[:28]}) == len(OKABE_ITO) * len(DASHES)
    assert {look.shape for look in known.values()} == {*SHAPES}


def test_rows_stand_in_their_order_beside_their_baselines(drawn):
    """Marks are read from the picture: further right is larger, further down is worse."""
    where = {}
    for node in ElementTree.fromstring(svg(drawn["dots"])).iterfind(".//{*}path"):
        label = node.get("aria-label", "")
        if node.get("aria-roledescription") == "point" and (name := re.search(r"architecture: (.*?);", label)):
            where[name[1]] = [float(v) for v in re.findall(r"[-\d.]+", node.get("transform"))]
    assert [*where] == [*NAMES]
    for axis in (0, 1):
        values = [at[axis] for at in where.values()]
        assert values == sorted(values)
        assert len({*values}) == 4
    assert [row["baseline"] for row in rows_of(drawn["dots"], "baseline")] == ["xz<b>"]


def task_of(points, higher=False):
    """A task whose rows score the second and cost the first of each point."""
    rows = [
        board.Row(f"row {i}", "ok", "", y, y - 0.01, y + 0.01, seeds=[0], scores=[y], rank_low=1, rank_high=1, flops=x)
        for i, (x, y) in enumerate(points)
    ]
    return TaskBoard("t", "score", "", higher, rows, [], None, [], None)


@pytest.mark.parametrize("higher", [True, False])
def test_the_front_is_what_nothing_cheaper_beats(higher):
    draw = random.Random(higher)
    points = [(draw.randint(1, 9), draw.randint(1, 9)) for _ in range(40)]
    task = task_of(points, higher)

    def beaten(row):
        """Another costs no more and is better, or costs less and is as good."""
        return any(
            (x <= row.flops and task.cost(y) < task.cost(row.mean)) or (x < row.flops and y == row.mean)
            for x, y in points
        )

    expected = {(row.flops, row.mean) for row in task.rows if not beaten(row)}
    found = pareto.front(task, [(row, row.flops) for row in task.rows])
    assert {(x, row.mean) for row, x in found} == expected
    assert [x for _, x in found] == sorted(x for _, x in found)


@pytest.mark.parametrize("width", [252, 400])
@pytest.mark.parametrize("rows", [2, 8, 46])
def test_names_in_a_scatter_plot_cover_no_other_and_no_point(rows, width):
    draw = random.Random(rows)
    task = task_of([(draw.uniform(1, 20), draw.uniform(1, 2)) for _ in range(rows)])
    names = [row.architecture for row in task.rows]
    chart = pareto.cost(task, [], Frame(looks(names), width)).to_dict()
    view = ElementTree.fromstring(vl_convert.vegalite_to_svg(chart, config=theme(paper=True)))
    boxes, points = [], []
    for node in view.iter():
        label, at = (
            node.get("aria-roledescription"),
            re.match(r"translate\(([^,]*),([^)]*)\)", node.get("transform", "")),
        )
        if label == "text mark":
            x, y, long = float(at[1]), float(at[2]), 4.4 * len(node.text)
            left = x - long if node.get("text-anchor") == "end" else x
            boxes.append((left, y - 7, left + long, y + 2))
        elif label == "point":
            points.append((float(at[1]), float(at[2])))
    assert boxes
    assert len(points) == rows
    for a, b in itertools.combinations(boxes, 2):
        assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]
    assert not [p for p in points for b in boxes if b[0] < p[0] < b[2] and b[1] < p[1] < b[3]]
    assert all(box[0] >= 0 and box[2] <= width for box in boxes)


def test_curves_average_over_seeds_on_every_meter():
    curve = {s: [CurvePoint(t, 1, 2 * t, t / 10 + s, float(s + t)) for t in (10, 20, 30)] for s in (0, 2)}
    curve[2].append(CurvePoint(40, 1, 80, 4.0, 0.0))
    runs = [plant("a", s, 2.0, curve=own) for s, own in curve.items()]
    line = task_charts.average(runs, lambda point: point.loss)
    assert [point["tokens"] for point in line] == [10, 20, 30]
    assert [point["flops"] for point in line] == [20, 40, 60]
    assert [point["seconds"] for point in line] == [2, 3, 4]
    assert [(point["low"], point["score"], point["high"]) for point in line] == [
        (t, t + 1, t + 2) for t in (10, 20, 30)
    ]
    assert len(task_charts.average(runs, lambda point: point.loss, 2)) == 2


def test_curves_choose_their_meter_and_seconds_only_on_one_machine(three):
    made = board.make("quick", three, [])

    def meters(records):
        (curves,) = [c.chart for c in charts.of(sections(made)[0], made, records) if c.name == "curves"]
        choices = [p["bind"]["options"] for p in curves.to_dict()["params"] if p["name"] == "shown"]
        return choices[0] if choices else None

    points = [change(point, flops=2 * point.tokens) for point in three[0].curve]
    counted = [change(r, curve=points) for r in three]
    assert meters(counted) == ["tokens", "flops", "seconds"]
    assert meters([change(counted[0], provenance__hardware="H100"), *counted[1:]]) == ["tokens", "flops"]
    assert meters(three) == ["tokens", "seconds"], "no FLOPs were counted"


def test_learning_rates_are_those_of_trials_and_mark_the_chosen(drawn):
    found = {(row["architecture"], row["lr"]): row for row in rows_of(drawn["learning_rates"], "lr")}
    assert {lr for _, lr in found} == {1e-3, 3e-3, 1e-2}
    assert {lr for (_, lr), row in found.items() if row["chosen"]} == {3e-3}
    assert [found["lstm", lr]["score"] for lr in (1e-3, 3e-3, 1e-2)] == [3.5, 2.5, 3.5]


def test_steps_are_the_profiles_they_stand_for():
    """Read from the drawn corners at many τ: the fraction of runs at τ or above."""
    draw = random.Random(3)
    records = [
        plant(name, s, draw.uniform(2, 4), spec__task=task, spec__task_label=task, run_id=f"{name}{task}{s}")
        for name in "abc" for task in ("t", "u") for s in range(4)
    ]  # fmt: skip
    made = board.make("steps", records, [])
    (found,) = made.across
    section = next(s for s in sections(made) if s.subject is found)
    spec = {c.name: c.chart.to_dict() for c in charts.of(section, made, records)}["profile"]
    for row in found.rows:
        corners = [
            (p["tau"], p["share"]) for p in rows_of(spec, "tau", "share") if p["architecture"] == row.architecture
        ]
        for tau in np.linspace(0, corners[-1][0], 77):
            drawn_at = next(share for at, share in corners if at >= tau)
            assert drawn_at == pytest.approx(stats.profile([*row.normalised.values()], [tau])[0], abs=1e-5)


@pytest.mark.parametrize(("format", "begins"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("html", b"<!DOCTYPE html>")])
def test_a_chart_is_written_in_every_format(format, begins):
    records = planted()
    made = board.make("planted", records, [])
    first = charts.of(sections(made)[0], made, records, 252, legend=True)[0]
    assert export.as_bytes(first.chart, format).startswith(begins)

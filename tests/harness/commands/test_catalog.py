"""`ls`, `show` and `fetch`: everything that is known, as tables, JSON, and the pages in the docs."""

import json
from pathlib import Path

import pytest

import tasks.registry
import zoo
from harness.catalog import entries as catalog
from harness.commands import ls
from harness.plan import trials
from harness.plan.expand import expand
from harness.suite.load import load
from tasks import DataError, corpora
from zoo import proofs

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def known():
    """Every row, by kind."""
    return {kind: catalog.rows(kind) for kind in ls.KINDS}


@pytest.mark.parametrize("kind", ls.KINDS)
def test_the_same_rows_in_every_form(kind, known, monkeypatch, call):
    monkeypatch.setattr(catalog, "rows", lambda kind: known[kind])
    rows = json.loads(call("ls", kind, "--json").stdout)
    assert [row["name"] for row in rows] == list(catalog.KINDS[kind].names())
    table = call("ls", kind).stdout
    assert all(row["name"] in table for row in rows)
    if kind not in ls.PAGES:
        assert "--markdown" in call("ls", kind, "--markdown", status=2).stderr
        return
    page = call("ls", kind, "--markdown").stdout
    for row in rows:
        assert f"| [`{row['name']}`](#{row['name']}) |" in page
        assert f"\n### {row['name']}\n" in page
        assert all(f"- deviation: {deviation}\n" in page for deviation in row["deviations"])


def test_architectures_since_a_year(known, monkeypatch, call):
    monkeypatch.setattr(catalog, "rows", lambda kind: known[kind])
    rows = json.loads(call("ls", "--since", "2024", "--json").stdout)
    assert {row["name"] for row in rows} == set(zoo.list(since=2024))
    assert "only the list of architectures goes by year" in call("ls", "tasks", "--since", "2024", status=2).stderr


@pytest.mark.parametrize("kind", ls.PAGES)
def test_the_pages_in_the_docs_are_up_to_date(kind, known, monkeypatch):
    """`make docs` writes them."""
    monkeypatch.setattr(catalog, "rows", lambda kind: known[kind])
    written = (ROOT / "docs" / ls.PAGES[kind].removesuffix(".j2")).read_text(encoding="utf-8")
    assert written == ls.page(kind)


def test_every_architecture_has_a_row_with_its_paper_source_and_proofs(known):
    rows = {row["name"]: row for row in known["architectures"]}
    assert rows.keys() == set(zoo.names())
    for name, row in rows.items():
        assert all(row[key] for key in ("roles", "paper", "source")), name
        assert row["about"].endswith("."), name
        assert [proof["oracle"] for proof in row["oracles"]] == [proof.oracle for proof in proofs.of(name)]
        for proof in proofs.of(name):
            assert proof.output is not None, name
            assert proof.output <= 2e-5, (name, proof)
            assert proof.gradient is None or proof.gradient <= 1e-4, (name, proof)
    unproven = {name for name, row in rows.items() if not row["oracles"]}
    assert unproven == {"hybrid", "h3_attention", "samba"}, "made of parts that are proven by themselves"


def test_tasks_have_metrics_families_and_difficulties(call):
    class Graded(tasks.get("mqar").make):
        """Recall, graded."""

        difficulties = {"smoke": tasks.Difficulty({"length": 16, "pairs": 2}, stop={"tokens": 1000}, params=5000)}

    class Needy(tasks.get("mqar").make):
        """Asks for a file."""

        def __init__(self, *, path: str) -> None:
            raise DataError(f"{path} is not here")

    tasks.register("graded", paper="Somebody 2026", deviations=("shorter",))(Graded)
    tasks.register("needy")(Needy)
    rows = {row["name"]: row for row in catalog.rows("tasks")}
    assert rows["needy"]["metric"] is None
    assert (rows["mqar"]["family"], rows["mqar"]["chance"], rows["mqar"]["direction"]) == ("recall", 1 / 64, "higher")
    assert (rows["text"]["unit"], rows["text"]["direction"]) == ("bits/byte", "lower")
    assert rows["graded"]["difficulties"]["smoke"]["options"] == {"length": 16, "pairs": 2}
    page = call("ls", "tasks", "--markdown").stdout
    assert "| smoke | length=16, pairs=2 | tokens=1000 | 5,000 | – | – |\n" in page
    shown = call("show", "graded").stdout.replace("\n", " ")
    assert "smoke: options length=16, pairs=2; stop tokens=1000; params 5000" in shown


def test_installed_packages_add_tasks_and_a_broken_one_is_left_out(tmp_path, monkeypatch, call):
    """Through entry points in group `zoobench.tasks`, as pip writes them."""
    monkeypatch.chdir(tmp_path)
    call("new", "foreign", "--task")
    for name, module in (("foreign", "foreign"), ("broken", "no_such_module")):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[zoobench.tasks]\n{name} = {module}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tasks.registry._registry, "_loaded", False)  # as in a process that starts now
    with pytest.warns(UserWarning, match="task plug-in no_such_module is left out: ModuleNotFoundError"):
        assert "foreign" in tasks.names()
    assert tasks.build("foreign").batch("train", 0, size=2).inputs.shape[0] == 2


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("architecture", "pre_ln"),
        ("task", "mqar"),
        ("task", "mnist"),  # the former name of pixels
        ("suite", "quick"),
        ("corpus", "wikipedia_xml"),
        ("question", "zoo_recall"),
    ],
)
def test_one_thing_is_shown_whatever_it_is(kind, name, call):
    row = json.loads(call("show", name, "--json").stdout)
    assert (row["kind"], row["name"]) == (kind, {"mnist": "pixels"}.get(name, name))
    shown = call("show", name).stdout
    assert all(key in shown for key in row)


def test_a_suite_is_shown_as_it_will_run(tmp_path, call):
    """What it extends is merged in, and the numbers are those of the suite as it is loaded."""
    (tmp_path / "mine.yaml").write_text("suite: mine\nextends: quick\nseeds: [5]\nbudget: {stop: {tokens: 70k}}\n")
    row = json.loads(call("show", tmp_path / "mine.yaml", "--json").stdout)
    loaded = load(tmp_path / "mine.yaml")
    assert (row["extends"], row["runs"], row["trials"], row["seeds"]) == ("quick", len(expand(loaded)), 0, [5])
    assert row["budget"]["stop"] == {"tokens": 70_000}
    assert row["tasks"]["pixels"]["stop"] == {"tokens": 240_000}
    shown = call("show", tmp_path / "mine.yaml").stdout
    assert "  - linformer: {k: 16}\n" in shown
    assert "  - text: {corpus: wikipedia_xml, length: 64}\n" in shown
    assert "stop: {tokens: 70k}" in shown
    assert "params: 200k" in shown
    (tmp_path / "more.yaml").write_text("suite: more\nextends: quick\nseeds: {start: 2, most: 9, until: separated}\n")
    row = json.loads(call("show", tmp_path / "more.yaml", "--json").stdout)
    assert row["seeds"] == {"start": 2, "most": 9, "until": "separated"}
    assert 2 * row["most_runs"] == 9 * row["runs"]
    assert "start=2" in call("show", tmp_path / "more.yaml").stdout


@pytest.mark.parametrize("suite", ["recall", "fair"])
def test_difficulties_and_tracks_are_spelled_out(suite, call):
    row, loaded = json.loads(call("show", suite, "--json").stdout), load(suite)
    assert (row["runs"], row["trials"]) == (len(expand(loaded)), trials.count(loaded))
    for task in loaded.tasks:
        said = row["tasks"][task.label]
        assert said[task.entry.name] == task.options
        assert {**row["model"], **said.get("model", {})} == task.model
        if row["difficulty"]:
            assert said["stop"] == task.stop.to_dict()
            assert said["match"]["params"] == task.match.target
            assert said["train"]["lr"] == task.train.lr


def test_what_is_unknown_is_answered_with_the_nearest(call):
    assert "'pre_lnn'; did you mean 'pre_ln'?" in call("show", "pre_lnn", status=2).stderr


def test_fetch_says_what_is_where(monkeypatch, call):
    def fetch(name):
        if name == "mnist_5k":
            raise DataError("corpus 'mnist_5k' is not here,\nand ZOOBENCH_OFFLINE forbids the network")
        corpora.get(name)
        return Path("/some/where")

    monkeypatch.setattr(corpora, "fetch", fetch)
    monkeypatch.setattr(corpora, "home", lambda: Path("/my/cache"))
    assert "fetched corpora are kept in /my/cache" in call("ls", "corpora").stdout
    assert call("fetch", "wikipedia_xml").stdout == "wikipedia_xml: /some/where\n"
    (row,) = json.loads(call("fetch", "wikipedia_xml", "--json").stdout)
    assert (row["name"], row["path"], row["here"]) == ("wikipedia_xml", "/some/where", True)
    for name, why in {
        "mnist_5k": "corpus 'mnist_5k' is not here, and ZOOBENCH_OFFLINE forbids the network",
        "wikipedia": "unknown corpus 'wikipedia'; did you mean 'wikipedia_xml'?",
    }.items():
        assert call("fetch", "wikipedia_xml", name, status=2).stderr == f"zoobench: {why}\n"

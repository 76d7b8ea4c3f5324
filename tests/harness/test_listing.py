"""The lists of what is known, and the page of architectures made from them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import tasks
import zoo
from harness import listing
from harness.cli import main
from zoo import proofs

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("kind", "page"), [("architectures", "zoo.md"), ("tasks", "tasks.md")])
def test_the_pages_in_the_docs_are_up_to_date(kind, page):
    """`make docs` writes them."""
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == listing.markdown(kind)


def test_every_architecture_has_a_row_with_its_paper_source_and_proofs():
    rows = {row["name"]: row for row in listing.rows("architectures")}
    assert rows.keys() == set(zoo.names())
    for name, row in rows.items():
        assert row["roles"], name
        assert row["paper"], name
        assert row["source"], name
        assert row["about"].endswith("."), name
        assert [proof["oracle"] for proof in row["oracles"]] == [proof.oracle for proof in proofs.of(name)]
    unproven = {name for name, row in rows.items() if not row["oracles"]}
    assert unproven == {"hybrid", "h3_attention"}, "made of parts that are proven by themselves"


def test_proofs_keep_the_limits():
    for name in zoo.names():
        for proof in proofs.of(name):
            assert proof.output is not None, name
            assert proof.output <= 2e-5, (name, proof)
            assert proof.gradient is None or proof.gradient <= 1e-4, (name, proof)


def test_the_same_rows_in_every_form():
    as_json = CliRunner().invoke(main, ["ls", "architectures", "--json"])
    page = CliRunner().invoke(main, ["ls", "architectures", "--markdown"])
    table = CliRunner().invoke(main, ["ls", "architectures"])
    for row in json.loads(as_json.stdout):
        assert f"| [`{row['name']}`](#{row['name']}) |" in page.stdout
        assert row["name"] in table.stdout
        for deviation in row["deviations"]:
            assert f"- deviation: {deviation}\n" in page.stdout


def test_tasks_have_rows_and_a_page():
    class Graded(tasks.get("mqar").make):
        """Recall, graded."""

        difficulties = {"smoke": tasks.Difficulty({"length": 16, "pairs": 2}, stop={"tokens": 1000}, params=5000)}

    tasks.register("graded", paper="Somebody 2026", deviations=("shorter",))(Graded)
    rows = {row["name"]: row for row in listing.rows("tasks")}
    assert rows.keys() == set(tasks.names())
    page = CliRunner().invoke(main, ["ls", "tasks", "--markdown"]).stdout
    table = CliRunner().invoke(main, ["ls", "tasks"]).stdout
    for name, row in rows.items():
        assert f"| [`{name}`](#{name}) | {row['role']} | {row['metric']} | {row['direction']} |" in page
        assert f"\n### {name}\n" in page
        assert name in table
        for deviation in row["deviations"]:
            assert f"- deviation: {deviation}\n" in page
    assert (rows["mqar"]["family"], rows["mqar"]["chance"], rows["mqar"]["direction"]) == ("recall", 1 / 64, "higher")
    assert (rows["text"]["unit"], rows["text"]["direction"]) == ("bits/byte", "lower")
    assert rows["graded"]["difficulties"]["smoke"]["options"] == {"length": 16, "pairs": 2}
    assert "| smoke | length=16, pairs=2 | tokens=1000 | 5,000 | – | – |\n" in page
    assert "smoke: options length=16, pairs=2; stop tokens=1000; params 5000" in CliRunner().invoke(
        main, ["show", "graded"]
    ).stdout.replace("\n", " ")


def test_a_task_that_needs_options_is_listed_too():
    class Needy(tasks.get("mqar").make):
        """Asks for a file."""

        def __init__(self, *, path: str) -> None:
            raise tasks.DataError(f"{path} is not here")

    tasks.register("needy")(Needy)
    assert next(row["metric"] for row in listing.rows("tasks") if row["name"] == "needy") is None
    assert CliRunner().invoke(main, ["ls", "tasks"]).exit_code == 0


def test_installed_packages_add_tasks(tmp_path):
    """Through entry points in group `zoobench.tasks`, as pip writes them."""
    listing.new("foreign", tmp_path, task=True)
    folder = tmp_path / "foreign-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[zoobench.tasks]\nforeign = foreign\n")
    code = (
        "import json, tasks; from tasks import checks; assert 'foreign' in tasks.names(); "
        "print(json.dumps([(o.status, o.note) for o in [checks.apply('purity', checks.Subject('foreign'))]]))"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [["passed", ""]]


def test_a_broken_package_is_named_and_left_out(tmp_path):
    folder = tmp_path / "broken-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[zoobench.tasks]\nbroken = no_such_module\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    command = [sys.executable, "-c", "from harness.cli import main; main()", "ls", "tasks"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "mqar" in done.stdout
    assert "task plug-in no_such_module is left out: ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize("what", ["suites", "corpora"])
def test_other_things_have_no_page(what):
    result = CliRunner().invoke(main, ["ls", what, "--markdown"])
    assert result.exit_code == 2
    assert "--markdown" in result.stderr

"""The commands as a person types them: what they print, their status, and what they do not load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import main
from tasks import DataError, corpora


def call(*arguments, status=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.exception, result.output)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout


def loaded_by(*arguments):
    """The modules that are loaded when a command ends."""
    code = "import sys; from harness.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments):
    assert not loaded_by(*arguments) & {"torch", "pydantic", "numpy", "rich", "yaml", "matplotlib"}


def test_an_unknown_command_is_answered_with_the_nearest():
    result = CliRunner().invoke(main, ["vaildate"])
    assert result.exit_code == 2
    assert "unknown command 'vaildate'; did you mean 'validate'?" in result.stderr
    assert result.stderr.count("\n") == 1


def test_validate_and_plan(suite):
    path = suite()
    assert call("validate", path) == "tiny is valid: 4 runs and 0 trials\n"
    assert json.loads(call("validate", path, "--json")) == {"suite": "tiny", "valid": True, "runs": 4, "trials": 0}
    cells = json.loads(call("plan", path, "--json"))
    assert [(cell["architecture"], cell["runs"]) for cell in cells] == [("pre_ln", 2), ("lstm", 2)]
    assert all(cell["steps"] == 6 and cell["flops"] > 0 and cell["size"]["params"] > 0 for cell in cells)
    shown = call("plan", path)
    assert "pre_ln" in shown
    assert "4 runs" in shown


@pytest.mark.parametrize("what", ["architectures", "tasks", "suites", "corpora"])
def test_lists_are_objects_with_names(what):
    rows = json.loads(call("ls", what, "--json"))
    assert rows
    assert all(row["name"] for row in rows)
    assert rows[0]["name"] in call("ls", what)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("pre_ln", "architecture"), ("mqar", "task"), ("quick", "suite"), ("wikipedia_xml", "corpus")],
)
def test_one_thing_is_shown_whatever_it_is(name, kind):
    found = json.loads(call("show", name, "--json"))
    assert (found["name"], found["kind"]) == (name, kind)
    assert name in call("show", name)


def test_a_task_is_found_under_its_former_name():
    found = json.loads(call("show", "mnist", "--json"))
    assert (found["name"], found["kind"], found["family"]) == ("pixels", "task", "images")
    assert found["paper"]
    assert found["deviations"]


def test_fetch_says_what_is_where(monkeypatch):
    def fetch(name):
        if name == "mnist_5k":
            raise DataError("corpus 'mnist_5k' is not here,\nand ZOOBENCH_OFFLINE forbids the network")
        corpora.get(name)
        return Path("/some/where")

    monkeypatch.setattr(corpora, "fetch", fetch, raising=False)
    assert call("fetch", "wikipedia_xml") == "wikipedia_xml: /some/where\n"
    (row,) = json.loads(call("fetch", "wikipedia_xml", "--json"))
    assert (row["name"], row["path"], row["here"]) == ("wikipedia_xml", "/some/where", True)
    for name, why in (
        ("mnist_5k", "corpus 'mnist_5k' is not here, and ZOOBENCH_OFFLINE forbids the network"),
        ("wikipedia", "unknown corpus 'wikipedia'; did you mean 'wikipedia_xml'?"),
    ):
        result = CliRunner().invoke(main, ["fetch", "wikipedia_xml", name])
        assert (result.exit_code, result.stderr) == (2, f"zoobench: {why}\n")


def test_lists_of_corpora_say_where_the_cache_is(monkeypatch):
    monkeypatch.setattr(corpora, "home", lambda: Path("/my/cache"), raising=False)
    assert "fetched corpora are kept in /my/cache" in call("ls", "corpora")


def test_showing_what_is_unknown():
    result = CliRunner().invoke(main, ["show", "pre_lnn"])
    assert result.exit_code == 2
    assert "'pre_lnn'; did you mean 'pre_ln'?" in result.stderr


@pytest.mark.slow
def test_run_then_everything_that_reads_its_records(suite, tmp_path):
    path, root = suite(), tmp_path / "results"
    assert json.loads(call("status", path, "--results", root, "--json"))[0]["counts"]["to do"] == 4
    rows = json.loads(call("run", path, "--results", root, "--workers", 2, "--json"))
    assert {row["architecture"] for row in rows} >= {"pre_ln", "lstm"}
    keys = "architecture task metric mean low high seeds rank_low rank_high status reason"
    assert set(keys.split()) <= set(rows[0])
    for name in ("index.html", "board.md", "board.csv", "board.json"):
        assert (root / "tiny" / "board" / name).stat().st_size

    counts = json.loads(call("status", path, "--results", root, "--json"))[0]["counts"]
    assert (counts["ok"], counts["to do"], counts["under way"]) == (4, 0, 0)
    assert call("status", "--results", root) == "tiny: 4 ok\n"
    assert "4 records" in call("publish", path, "--results", root)
    counts = json.loads(call("status", path, "--results", root, "--json"))[0]["counts"]
    assert (counts["ok"], counts["to do"], counts["published by others"]) == (0, 4, 4)
    (root / "tiny" / "published.json").unlink()
    assert "pre_ln" in call("board", path, "--results", root)

    (row,) = json.loads(call("compare", "pre_ln", "lstm", path, "--results", root, "--json"))
    assert (row["task"], row["seeds"]) == ("mqar", [0, 1])
    assert "pre_ln against lstm" in call("compare", "pre_ln", "lstm", path, "--results", root)
    result = CliRunner().invoke(main, ["compare", "pre_ln", "lstn", str(path), "--results", str(root)])
    assert result.exit_code == 2
    assert "'lstm'?" in result.stderr

    assert call("verify", root) == "every record is sound\n"
    tamper(root)


def tamper(root: Path) -> None:
    """Every change to a record is noticed, and named by its file."""
    file = sorted(root.glob("tiny/*/record.json"))[0]
    original = file.read_text()

    def noticed(text):
        file.write_text(text)
        problems = json.loads(call("verify", root, "--json", status=1))
        file.write_text(original)
        assert {problem["file"] for problem in problems} >= {str(file)}
        return problems[0]["problem"]

    record = json.loads(original)
    assert "not the hash of its own spec" in noticed(original.replace('"lr": 0.001', '"lr": 0.002'))
    assert "not a record" in noticed(original[:100])
    assert "not a record" in noticed("[]")
    assert "unknown status" in noticed(json.dumps({**record, "status": "great"}))
    assert "record format" in noticed(json.dumps({**record, "schema": 99}))
    assert "no hash of the data" in noticed(json.dumps({**record, "data": {**record["data"], "stream_hash": ""}}))
    call("publish", root.parent / "tiny.yaml", "--results", root)
    score = json.dumps({**record, "metrics": {**record["metrics"], "test": {"accuracy": 1.0}}})
    assert "not the record that was published" in noticed(score)
    assert call("verify", root) == "every record is sound\n"
    file.unlink()
    assert "published, but not there" in call("verify", root, status=1)


def test_verify_and_board_without_records(suite, tmp_path):
    assert CliRunner().invoke(main, ["verify", str(tmp_path)]).exit_code == 2
    result = CliRunner().invoke(main, ["board", str(suite()), "--results", str(tmp_path)])
    assert result.exit_code == 2
    assert "no finished runs yet; start them with: zoobench run" in result.stderr
    assert call("status", "--results", tmp_path) == ""


@pytest.mark.slow
def test_a_failure_gives_status_1(suite, tmp_path):
    (tmp_path / "bad.py").write_text(
        "from zoo import Mixer, Traits, register\n\n\n@register()\nclass Bad(Mixer):\n    '''Bad.'''\n\n"
        "    traits = Traits(causal='strict', bidirectional=False, resumable=False)\n\n"
        "    def forward(self, x, *, mask=None, state=None):\n        raise RuntimeError('planted')\n"
    )
    path = suite(plugins=["bad.py"], architectures=["bad"], seeds=[0])
    shown = call("run", path, "--results", tmp_path / "results", "--workers", 1, status=1)
    assert "planted" in shown


@pytest.mark.slow
def test_a_new_architecture_works_as_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = call("new", "my_mixer")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my_mixer.py", "my_mixer.yaml"]
    assert "zoobench check my_mixer --plugin my_mixer.py" in said
    rows = json.loads(call("check", "my_mixer", "--plugin", "my_mixer.py", "--json"))
    assert {row["status"] for row in rows} <= {"passed", "skipped"}
    small = ["--set", "budget.stop.tokens=2k", "--set", "seeds=[0]", "--set", "evaluate.test=8"]
    call("run", "my_mixer.yaml", "--results", "results", "--workers", 2, *small)
    for wrong, why in [
        ("my_mixer", "already an architecture"),
        ("lstm", "already an architecture"),
        ("My-Mixer", "lower-case"),
    ]:
        result = CliRunner().invoke(main, ["new", wrong])
        assert result.exit_code == 2
        assert why in result.stderr


def test_a_new_task_keeps_the_contract_as_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = call("new", "my_task", "--task")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my_task.py", "my_task.yaml"]
    assert "zoobench check my_task --plugin my_task.py" in said
    rows = json.loads(call("check", "my_task", "--plugin", "my_task.py", "--json"))
    assert {row["task"] for row in rows} == {"my_task"}
    assert {row["status"] for row in rows} == {"passed"}
    assert call("validate", "my_task.yaml") == "my_task is valid: 4 runs and 0 trials\n"
    for wrong, why in [("mqar", "already a task"), ("lstm", "already an architecture"), ("T", "a task's name")]:
        result = CliRunner().invoke(main, ["new", wrong, "--task"])
        assert result.exit_code == 2
        assert why in result.stderr


@pytest.mark.slow
def test_a_new_task_runs_as_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("new", "my_task", "--task")
    small = ["--set", "budget.stop.tokens=2k", "--set", "seeds=[0]", "--set", "evaluate.test=8"]
    rows = json.loads(call("run", "my_task.yaml", "--results", "results", "--workers", 2, "--json", *small))
    assert {row["architecture"] for row in rows if row["task"] == "my_task"} >= {"pre_ln", "lstm"}


def test_new_overwrites_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text("mine")
    result = CliRunner().invoke(main, ["new", "other"])
    assert result.exit_code == 2
    assert result.stderr == "zoobench: other.yaml: is in the way; nothing was written\n"
    assert [path.name for path in tmp_path.iterdir()] == ["other.yaml"]

"""What holds for every command: help, errors, and what they do not load; and one suite from `run` to `verify`."""

import json
import re
import subprocess
import sys

import pytest
import yaml
from rich.console import Console

import harness
import zoo
from harness.commands import VERBS


def loaded_by(*commands):
    """The top-level modules that are loaded after these commands, each a list of words, in a fresh process."""
    code = "import sys; from harness.commands import main\n"
    code += f"for words in {commands!r}: main(words, standalone_mode=False)\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_help_loads_nothing_heavy():
    heavy = {"torch", "pydantic", "numpy", "rich", "yaml", "altair", "pandas"}
    assert not loaded_by(["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)) & heavy


@pytest.mark.parametrize("columns", [60, 80])
def test_no_summary_is_cut(columns, monkeypatch, call):
    monkeypatch.setenv("COLUMNS", str(columns))
    listed = call("--help").stdout.partition("\nRun:\n")[2]
    assert "..." not in listed
    for verb in VERBS:
        summary = call(verb, "--help").stdout.split("\n\n")[1]
        assert " ".join([verb, *summary.split()]) in " ".join(listed.split())
        assert columns < 80 or len(summary.splitlines()) == 1, "a sentence of one line"


def test_an_unknown_command_is_answered_with_the_nearest(call):
    said = call("vaildate", status=2).stderr
    assert said == "zoobench: unknown command 'vaildate'; did you mean 'validate'?; see zoobench --help\n"


def test_validate_and_plan_say_what_trains(suite, call):
    """A row that cannot be is counted apart; `mlp_mixer` is no language model."""
    assert call("validate", suite()).stdout == "tiny is valid: 4 runs and 0 trials\n"
    path = suite(architectures=[{"pre_ln": {"heads": 1}}, "mlp_mixer"], tuning={"lr": [1e-3, 1e-2, 1e-1]})
    told = "2 runs and 3 trials, 2 more are unsupported"
    assert call("validate", path).stdout == f"tiny is valid: {told}\n"
    shown = call("plan", path).stdout
    assert "pre_ln" in shown
    assert told in shown
    found = json.loads(call("validate", path, "--json").stdout)
    assert found == {"suite": "tiny", "valid": True, "runs": 2, "trials": 3, "unsupported": 2, "added": 0}
    cells = json.loads(call("plan", path, "--json").stdout)
    assert [cell["architecture"] for cell in cells] == ["pre_ln", "mlp_mixer"]
    (cell,) = [cell for cell in cells if cell["size"]]
    assert (cell["runs"], cell["trials"], cell["steps"]) == (2, 3, 6)
    assert cell["flops"] > 0
    assert cell["size"]["params"] > 0


def test_a_plan_of_added_seeds_goes_from_the_least_to_the_most(suite, call):
    path = suite(seeds={"start": 2, "most": 5, "until": "separated"})
    assert call("validate", path).stdout == "tiny is valid: 4 runs and 0 trials, up to 6 more as seeds are added\n"
    shown = call("plan", path, "--on", "cpu:1").stdout
    assert shown.count("2–5") == 2
    assert re.search(r"up to 6 more as seeds are added; about \S+ to \S+ on this machine", shown)
    assert re.search(r"cpu:1 with 2 seeds: .*\ncpu:1 with 5 seeds: ", shown)
    found = json.loads(call("plan", path, "--on", "cpu:1", "--json").stdout)
    assert [(cell["runs"], cell["most"]) for cell in found["cells"]] == [(2, 5)] * 2
    least, most = (cost["device_hours"][1] for cost in found["costs"])
    assert most / least == pytest.approx(5 / 2)


@pytest.mark.slow
def test_run_then_everything_that_reads_its_records(suite, call, tmp_path):
    path, results = suite(), ("--results", tmp_path / "results")
    folder = tmp_path / "results" / "tiny"

    def counts():
        return json.loads(call("status", path, *results, "--json").stdout)[0]["counts"]

    assert counts()["to do"] == 4
    rows = json.loads(call("run", path, *results, "--workers", 2, "--threads", 2, "--json").stdout)
    assert {json.loads(file.read_text())["provenance"]["threads"] for file in folder.glob("*/record.json")} == {2}
    assert {row["architecture"] for row in rows} >= {"pre_ln", "lstm"}
    keys = "architecture task metric mean low high seeds rank_low rank_high status reason"
    assert set(keys.split()) <= set(rows[0])
    assert counts() | {"ok": 4, "to do": 0, "under way": 0} == counts()
    assert call("status", *results).stdout == "tiny: 4 ok\n"
    assert "4 records" in call("publish", path, *results).stdout
    assert counts() | {"ok": 4, "to do": 0, "published": 0} == counts()
    assert "pre_ln" in call("board", path, *results).stdout

    (row,) = json.loads(call("compare", "pre_ln", "lstm", path, *results, "--json").stdout)["tasks"]
    assert (row["task"], row["seeds"]) == ("mqar", [0, 1])
    assert "pre_ln is better than lstm on" in call("compare", "pre_ln", "lstm", path, *results).stdout
    assert "'lstm'?" in call("compare", "pre_ln", "lstn", path, *results, status=2).stderr

    run = ["run", path, *results]
    before = sorted(path.stat().st_mtime_ns for path in folder.glob("*/record.json"))
    again = call(*run).stdout
    assert "runs are finished" in again
    assert again.splitlines()[-1].startswith("mqar: "), "it ends with a verdict"
    quiet = call(*run, "--quiet").stdout
    assert "nothing to do" not in quiet
    assert quiet.splitlines()[-1] == again.splitlines()[-1]
    from_python(yaml.safe_load(path.read_text()), tmp_path / "results", again.splitlines()[-1], rows)
    assert sorted(path.stat().st_mtime_ns for path in folder.glob("*/record.json")) == before

    assert call("verify", folder).stdout == "every record is sound\n"
    every_change_is_noticed(folder, call, lambda: call("publish", path, *results))


def from_python(suite, root, verdict, rows):
    """The same suite as a dict is the same suite, and its results are a table."""
    results = harness.run(suite, root=root, console=Console(quiet=True))
    assert (results.ran, results.ok, len(results.records)) == (0, True, 4)
    assert str(results).splitlines() == [f"tiny: 4 runs in {root / 'tiny'}, 0 made now", verdict]
    assert results.table().architecture.tolist() == [row["architecture"] for row in rows]
    assert results.table()["mean"].tolist() == [row["mean"] for row in rows]
    shown = results._repr_html_()
    assert f"<br>{verdict}</p>" in shown
    assert "<td>pre_ln</td>" in shown


def test_the_names_of_the_package_are_listed():
    assert {"run", "Results"} <= {*dir(harness)}
    assert {"list", "load", "save", "Mixer", "build"} <= {*dir(zoo)}


def every_change_is_noticed(folder, call, publish):
    """Change a record, and see that `verify` names its file."""
    file = sorted(folder.glob("*/record.json"))[0]
    original = file.read_text()
    record = json.loads(original)

    def problem(text):
        file.write_text(text)
        problems = json.loads(call("verify", folder, "--json", status=1).stdout)
        file.write_text(original)
        assert {found["file"] for found in problems} >= {str(file)}
        return " ".join(found["problem"] for found in problems)

    def changed(**keys):
        return problem(json.dumps({**record, **keys}))

    assert "not the hash of its own spec" in problem(original.replace('"lr": 0.001', '"lr": 0.002'))
    assert "not a record" in problem(original[:100])
    assert "not a record" in problem("[]")
    assert "status: expected" in changed(status="great")
    assert "record format" in changed(schema=99)
    assert "no hash of the data" in changed(data={**record["data"], "stream_hash": ""})
    assert "was changed after it was written" in changed(data={**record["data"], "stream_hash": "0" * 32})
    for name in ("records.parquet", "curves.parquet"):
        publish()
        assert call("verify", folder).stdout == "every record is sound\n"
        published = folder / name
        published.write_bytes(published.read_bytes()[:-1] + b"?")
        assert f"{name}: not the file that was published" in call("verify", folder, status=1).stdout
        published.unlink()
        assert f"{name}: published, but not there" in call("verify", folder, status=1).stdout


def test_without_records(suite, call, tmp_path):
    assert "no record under this path" in call("verify", tmp_path, status=2).stderr
    said = call("board", suite(), "--results", tmp_path, status=2).stderr
    assert "no finished runs yet; start them with: zoobench run" in said
    said = f"no results in {tmp_path}/ yet; make the first with: zoobench run quick\n"
    assert call("status", "--results", tmp_path).stdout == said
    assert json.loads(call("status", "--results", tmp_path, "--json").stdout) == []


@pytest.mark.slow
def test_a_failure_gives_status_1(suite, call, tmp_path):
    path = suite(architectures=["lstm"], seeds=[0], limits={"timeout": "0.01s"})
    said = call("run", path, "--results", tmp_path / "results", "--workers", 1, status=1).stdout
    assert "stopped after 0 s of wall time" in said

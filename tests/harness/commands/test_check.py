"""`zoobench check`: rows, plug-ins, and mistakes a user can make."""

import json

import pytest

import tasks
from harness.commands import check

PLUGIN = """
import zoo
from zoo.contract import Mixer, Traits

@zoo.register()
class Peeking(Mixer):
    traits = Traits(causal="strict", bidirectional=False, resumable=False)

    def forward(self, x, *, mask=None, state=None):
        return x.roll(-1, 1), None
"""


def test_a_faulty_plugin_fails_beside_what_passes(tmp_path, monkeypatch, call):
    (tmp_path / "peeking.py").write_text(PLUGIN)
    arguments = ("check", "lstm", "peeking", "mqar", "--plugin", tmp_path / "peeking.py")
    rows = json.loads(call(*arguments, "--json", status=1).stdout)
    by_name = {name: {} for name in ("lstm", "peeking", "mqar")}
    for row in rows:
        kind = "task" if row.get("task") else "architecture"
        assert tuple(row) == (kind, "check", "status", "measured", "limit", "note")
        by_name[row[kind]][row["check"]] = row["status"]
    assert by_name["peeking"]["causality"] == "failed"
    assert "failed" not in {*by_name["lstm"].values(), *by_name["mqar"].values()}
    monkeypatch.setattr(check, "run_checks", lambda names: rows)
    shown = call(*arguments, status=1).stdout
    assert all(word in shown for word in ("causality", "fingerprint"))
    assert "failed" in shown.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["gru"], "'gru' is the name of an architecture and of a task: rename one of them"),
        (["lstn"], "did you mean 'lstm'"),
        (["mqra"], "unknown architecture or task 'mqra'; did you mean 'mqar'"),
        (["zzzzzz"], "unknown architecture or task 'zzzzzz'; see zoobench ls architectures"),
        (["lstm", "--plugin", "absent.py"], "absent.py does not exist"),
        (["lstm", "--plugin", "no_such_module"], "cannot import no_such_module"),
        (["lstm", "--plugin", "broken.py"], "cannot import broken.py"),
    ],
)
def test_mistakes_are_one_line(arguments, why, tmp_path, monkeypatch, call):
    class Both(tasks.get("mqar").make):
        """Recall under the name of an architecture."""

    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("def (")
    tasks.register("gru")(Both)
    said = call("check", *arguments, status=2).stderr
    assert why in said
    assert said.count("\n") == 1

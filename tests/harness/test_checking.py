"""`zoobench check`: rows, plug-ins, and mistakes a user can make."""

import io

import pytest
from rich.console import Console

import tasks
from harness import checking, listing
from harness.errors import UserError

PLUGIN = """
import zoo
from zoo.contract import Mixer, Traits

@zoo.register()
class Peeking(Mixer):
    traits = Traits(causal="strict", bidirectional=False, resumable=False)

    def forward(self, x, *, mask=None, state=None):
        return x.roll(-1, 1), None
"""


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "peeking.py"
    path.write_text(PLUGIN)
    return str(path)


def test_rows_of_a_faulty_plugin(plugin):
    rows = checking.check(("lstm", "peeking"), (plugin,))
    assert {row["architecture"] for row in rows} == {"lstm", "peeking"}
    assert {tuple(row) for row in rows} == {("architecture", "check", "status", "measured", "limit", "note")}
    status = {(row["architecture"], row["check"]): row["status"] for row in rows}
    assert status["peeking", "causality"] == "failed"
    assert "failed" not in {found for (name, _), found in status.items() if name == "lstm"}
    text = io.StringIO()
    checking.show(rows, Console(file=text, width=120))
    assert "causality" in text.getvalue()
    assert "failed" in text.getvalue().splitlines()[-1]


def test_tasks_and_architectures_are_told_apart(tmp_path):
    [file, _] = listing.new("own_task", tmp_path, task=True)
    rows = checking.check(("own_task", "recall"), (str(file),))
    assert {row["task"] for row in rows} == {"own_task", "recall"}
    assert {tuple(row) for row in rows} == {("task", "check", "status", "measured", "limit", "note")}
    assert {row["status"] for row in rows if row["task"] == "own_task"} == {"passed"}
    assert [checking.kind_of(name) for name in ("lstm", "mqar", "mnist")] == ["architecture", "task", "task"]
    text = io.StringIO()
    checking.show(rows, Console(file=text, width=120))
    assert "fingerprint" in text.getvalue()


def test_a_name_of_both_kinds_and_of_neither():
    class Both(tasks.get("mqar").make):
        """Recall under the name of an architecture."""

    tasks.register("lstm")(Both)
    with pytest.raises(UserError, match="'lstm' is the name of an architecture and of a task: rename one of them"):
        checking.check(("lstm",), ())
    with pytest.raises(UserError, match="unknown architecture or task 'mqra'; did you mean 'mqar'"):
        checking.check(("mqra",), ())
    with pytest.raises(UserError, match="unknown architecture or task 'zzzzzz'; see zoobench ls architectures"):
        checking.check(("zzzzzz",), ())


def test_mistakes_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="did you mean 'lstm'"):
        checking.check(("lstn",), ())
    with pytest.raises(UserError, match=r"absent\.py does not exist"):
        checking.check(("lstm",), (str(tmp_path / "absent.py"),))
    with pytest.raises(UserError, match="no_such_module"):
        checking.check(("lstm",), ("no_such_module",))
    broken = tmp_path / "broken.py"
    broken.write_text("def (")
    with pytest.raises(UserError, match="cannot import"):
        checking.check(("lstm",), (str(broken),))

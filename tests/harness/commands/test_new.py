"""`zoobench new`: what it writes works as it is."""

import json

import pytest

from harness.gates.registry import gates
from harness.plan.expand import expand
from harness.suite.load import load

from ..made import do

QUICKLY = (
    "seeds=[0] budget.stop.tokens=2k budget.match.params=20k train.precision=fp32 evaluate.test=8 "
    f"evaluate.skip_gates=[{','.join(gates())}] architectures="
)
"""What is set so that a suite runs on one architecture, named behind it, in no time."""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "trained"), [("architecture", "mine"), ("task", "pre_ln")])
def test_what_is_written_keeps_the_contract_and_runs(kind, trained, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    said = call("new", "mine", *(["--task"] if kind == "task" else [])).stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.py", "mine.yaml"]
    assert "zoobench check mine --plugin mine.py" in said
    rows = json.loads(call("check", "mine", "--plugin", "mine.py", "--json").stdout)
    assert {row[kind] for row in rows} == {"mine"}
    assert {row["status"] for row in rows} <= ({"passed"} if kind == "task" else {"passed", "skipped"})
    runs = 6 if kind == "task" else 9
    assert call("validate", "mine.yaml", "--trust").stdout == f"mine is valid: {runs} runs and 0 trials\n"
    (spec,) = expand(load("mine.yaml", tuple(f"{QUICKLY}[{trained}]".split())))
    assert (spec.architecture, do(spec, tmp_path / "run").status) == (trained, "ok")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["lstm"], "'lstm' is already an architecture"),
        (["lstm", "--task"], "'lstm' is already an architecture"),
        (["mqar", "--task"], "'mqar' is already a task"),
        (["My-Mixer"], "'My-Mixer' cannot be an architecture's name: use lower-case letters"),
        (["T", "--task"], "'T' cannot be a task's name"),
        (["other"], "other.yaml: is in the way; nothing was written"),
    ],
)
def test_what_is_refused(arguments, why, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text("mine")
    assert why in call("new", *arguments, status=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["other.yaml"]

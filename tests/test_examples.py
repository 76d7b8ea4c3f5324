"""The examples run, and the tutorials show what the examples hold."""

import json
import re
import runpy
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from harness.commands import main

ROOT = Path(__file__).parents[1]
EXAMPLES, TUTORIALS = ROOT / "examples", ROOT / "docs" / "tutorials"


def call(*arguments):
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, (result.exception, result.output)
    return result.stdout


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (TUTORIALS / page).read_text(), flags=re.S | re.M)


@pytest.mark.parametrize(("name", "runs"), [("first", 9), ("ema", 12)])
def test_suites_are_valid(name, runs):
    found = json.loads(call("validate", EXAMPLES / f"{name}.yaml", "--json", "--trust"))
    assert (found["suite"], found["runs"], found["trials"]) == (name, runs, 0)


def test_the_plug_in_keeps_the_contract():
    found = json.loads(call("check", "ema", "--plugin", EXAMPLES / "ema.py", "--json"))
    assert {row["status"] for row in found} == {"passed"}


def test_the_script_describes_models(capsys):
    script = runpy.run_path(str(EXAMPLES / "compare.py"))
    script["describe"]("lstm")
    assert re.fullmatch(r"lstm: [\d,]+ parameters, 5\.\d\d nats per byte before training .*\n", capsys.readouterr().out)


@pytest.mark.parametrize(("page", "name"), [("first-suite.md", "first"), ("architecture.md", "ema")])
def test_tutorials_show_the_suites(page, name):
    assert yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text()) in map(yaml.safe_load, blocks(page, "yaml"))


def test_the_tutorial_shows_the_plug_in():
    code = (EXAMPLES / "ema.py").read_text()
    assert blocks("architecture.md", "python")[-1].partition("@register")[2] in code


@pytest.mark.with_all
def test_the_kernel_of_the_tutorial_passes_its_own_tests(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    truth, loops, autograd, proof, _ = blocks("kernel.md", "python")
    (tmp_path / "ema_kernel.py").write_text("\n\n".join([loops, truth, autograd]))
    (tmp_path / "test_ema_kernel.py").write_text(proof)
    monkeypatch.syspath_prepend(tmp_path)
    assert pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]) == 0

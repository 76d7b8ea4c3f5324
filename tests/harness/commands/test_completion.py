"""A shell completes names, without loading torch."""

import os
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from harness.commands import main
from harness.records.store import Store

from ..planted import plant


def completed(*words):
    """What the last of the words can become; None for a path."""
    items = ShellComplete(main, {}, "zoobench", "_ZOOBENCH_COMPLETE").get_completions([*words[:-1]], words[-1])
    return None if [item.type for item in items] == ["file"] else [item.value for item in items]


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Results of `quick`, and of a suite made on the command line."""
    monkeypatch.setenv("ZOOBENCH_RESULTS", str(tmp_path))
    for name, seed in (("pre_ln", 0), ("pre_ln", 1), ("post_ln", 0)):
        record = plant(name, seed, 2.0)
        Store("quick").write(record)
    (tmp_path / "ad-hoc-x").mkdir()
    (tmp_path / "ad-hoc-x" / "suite.yaml").touch()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("run", "qu"), ["questions", "quick"]),
        (("status", "ad"), ["ad-hoc-x"]),
        (("board", "quick", "fa"), ["fair"]),
        (("validate", "mine"), None),
        (("run", "--task", "text,mq"), ["text,mqar"]),
        (("run", "--arch", "pre_"), ["pre_ln"]),
        (("bench", "lstm", "rwkv4"), ["rwkv4"]),
        (("check", "mqa"), ["mqar"]),
        (("draw", "post_ln", "pre_"), ["pre_ln"]),
        (("fetch", "wikipedia"), ["wikipedia_xml"]),
        (("show", "wikipedia"), ["wikipedia_xml"]),
        (("compare", "pre_"), ["pre_ln"]),
        (("eval", "qu"), ["quick"]),
        (("generate", "quick/p"), ["quick/post_ln", "quick/pre_ln"]),
        (("export", "quick/pre_ln/"), ["quick/pre_ln/text"]),
        (("eval", "quick/pre_ln/text/"), ["quick/pre_ln/text/0", "quick/pre_ln/text/1"]),
        (("eval", "quick/x"), None),
        (("bo",), ["board"]),
    ],
)
def test_names_are_completed(words, names, results):
    assert completed(*words) == names


def test_it_is_what_bash_asks_for_and_loads_no_torch():
    asked = {"_ZOOBENCH_COMPLETE": "bash_complete", "COMP_WORDS": "zoobench bench rwkv", "COMP_CWORD": "2"}
    code = "import atexit, sys; from harness.commands import main\n"
    code += "atexit.register(lambda: print('torch' in sys.modules))\nmain(prog_name='zoobench')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **asked})
    assert done.stdout.split() == ["plain,rwkv4", "plain,rwkv5", "plain,rwkv6", "plain,rwkv7", "False"], done.stderr

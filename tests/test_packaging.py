"""What the Makefile names is in the source distribution, and what it installs and runs is there."""

import re
from pathlib import Path

import pytest

from harness.commands import VERBS
from harness.suite.load import shipped

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
RECIPES = "\n".join(line for line in MAKEFILE.splitlines() if not line.startswith("#"))


@pytest.fixture(scope="module")
def project():
    """pyproject.toml."""
    tomllib = pytest.importorskip("tomllib", reason="comes with Python 3.11")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_files_that_the_makefile_names_are_in_the_source_distribution(project):
    packed = {*project["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"], "pyproject.toml"}
    scripts = {*re.findall(r"[\w/]+\.py", RECIPES)}
    words = {*re.findall(r"\w[\w./-]*", RECIPES)} - {"build"}  # which `make site` makes
    files = {word for word in words if (ROOT / word).exists()} | scripts
    assert {"benchmarks/kernels.py", "docs/zoo.md", "tests/oracles", "pyproject.toml"} <= files
    assert {word for word in scripts if not (ROOT / word).is_file()} == set()
    assert {word for word in files if word.partition("/")[0] not in packed} == set()
    assert {word for word in packed if not (ROOT / word).exists()} == set()


def test_extras_suites_and_commands_that_the_makefile_names_exist(project):
    extras = {name for group in re.findall(r"'\.\[([\w,-]+)\]'", RECIPES) for name in group.split(",")}
    assert extras
    assert extras <= project["project"]["optional-dependencies"].keys()
    (suites,) = re.findall(r"^SUITES := (.*)$", RECIPES, re.MULTILINE)
    assert {*suites.split()} <= shipped().keys()
    commands = {*re.findall(r"\(BIN\)/zoobench (\w+)", RECIPES)}
    assert commands
    assert commands <= {*VERBS}

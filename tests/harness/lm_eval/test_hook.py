"""The line that every start of Python reads, against packages called `lm_eval` as they are, were and may become."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LINE = ROOT / "harness" / "lm_eval" / "zoobench_lm_eval.pth"
REGISTRY = """
class Registry(dict):
    def register(self, name, *, target):
        self[name] = target
model_registry = Registry()
"""


def start(site: Path, code: str, *, harness: bool = True) -> str:
    """What a fresh Python prints, in which `site` is a folder of installed packages, and ours is one or is not."""
    (site / LINE.name).write_bytes(LINE.read_bytes())
    paths = [str(ROOT)] if harness else []
    before = f"import site, sys; sys.path[:0] = {paths!r}; site.addsitedir({str(site)!r}); "
    done = subprocess.run([sys.executable, "-I", "-S", "-c", before + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """With a package `lm_eval` in it whose registry is that of 0.4.10 and later."""
    package = tmp_path / "lm_eval"
    for module, code in {"__init__": "", "api/__init__": "", "api/registry": REGISTRY, "models/__init__": ""}.items():
        file = package / f"{module}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    return tmp_path


ASK = "import lm_eval.models; from lm_eval.api.registry import model_registry as known; print(dict(known))"


def test_lm_eval_knows_zoobench_once_its_models_are_imported(site: Path) -> None:
    assert start(site, ASK).strip() == "{'zoobench': 'harness.lm_eval.adapter:Zoobench'}"


def test_until_then_nothing_is_imported_and_afterwards_nothing_is_left(site: Path) -> None:
    code = (
        "seen = lambda: [getattr(f, '__name__', '') for f in sys.meta_path].count('ZoobenchFinder'); "
        "print(seen(), 'harness' in sys.modules); import lm_eval.api.registry; print('harness' in sys.modules); "
        "import lm_eval.models; print(seen(), lm_eval.models.__spec__.name)"
    )
    assert start(site, code).split() == ["1", "False", "False", "0", "lm_eval.models"]


REGISTER = "from lm_eval.api.registry import model_registry\nmodel_registry.register('zoobench', target='theirs')\n"
CAUGHT = "\ntry:\n import lm_eval.models\nexcept RuntimeError as error: print(error)"


@pytest.mark.parametrize(
    ("module", "content", "code", "said"),
    [
        ("models/__init__", REGISTER, ASK, "{'zoobench': 'theirs'}"),  # an entry point came first
        ("models/__init__", "raise RuntimeError('theirs')\n", CAUGHT, "theirs"),
        ("api/registry", "MODEL_REGISTRY = {}\n", CAUGHT, "zoobench cannot be added to the models of this lm_eval"),
    ],
)
def test_lm_evals_that_are_otherwise(site: Path, module: str, content: str, code: str, said: str) -> None:
    (site / "lm_eval" / f"{module}.py").write_text(content)
    assert said in start(site, code)


def test_without_the_package_behind_it_the_line_does_no_harm(site: Path) -> None:
    assert start(site, ASK, harness=False).strip() == "{}"


def test_it_ships_as_one_line_beside_the_packages() -> None:
    assert f'"{LINE.relative_to(ROOT).as_posix()}" = "{LINE.name}"' in (ROOT / "pyproject.toml").read_text()
    lines = LINE.read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("import ")


def test_the_lm_eval_that_is_installed() -> None:
    pytest.importorskip("lm_eval")
    from importlib.metadata import entry_points

    import lm_eval.models  # noqa: F401
    from lm_eval.api.registry import model_registry

    from harness.lm_eval import hook

    hook.register()
    assert "zoobench" in model_registry
    assert all(point.value == hook.TARGET for point in entry_points(group="lm_eval.models", name="zoobench"))

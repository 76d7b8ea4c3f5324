"""The line that every start of Python reads, against packages called `lm_eval` as they are, were and may become."""

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
"""As of lm_eval 0.4.10 and later."""
REGISTER = "from lm_eval.api.registry import model_registry\nmodel_registry.register('zoobench', target='theirs')\n"
ASK = "import lm_eval.models; from lm_eval.api.registry import model_registry as known; print(dict(known))"
CAUGHT = "\ntry:\n import lm_eval.models\nexcept RuntimeError as error: print(error)"
SEEN = (
    "seen = lambda: [getattr(f, '__name__', '') for f in sys.meta_path].count('ZoobenchFinder'); "
    "print(seen(), 'harness' in sys.modules); import lm_eval.api.registry; print('harness' in sys.modules); "
    "import lm_eval.models; print(seen(), lm_eval.models.__spec__.name)"
)
OURS = [str(ROOT)]


@pytest.mark.parametrize(
    ("module", "content", "paths", "code", "said"),
    [
        ("", "", OURS, ASK, "{'zoobench': 'harness.lm_eval.adapter:Zoobench'}"),
        ("", "", OURS, SEEN, "1 False False 0 lm_eval.models"),  # nothing is imported until then, and all is gone after
        ("", "", [], ASK, "{}"),  # without the package behind the line it does no harm
        ("models/__init__", REGISTER, OURS, ASK, "{'zoobench': 'theirs'}"),  # an entry point came first
        ("models/__init__", "raise RuntimeError('theirs')\n", OURS, CAUGHT, "theirs"),
        ("api/registry", "MODEL_REGISTRY = {}\n", OURS, CAUGHT, "zoobench cannot be added to the models of this"),
    ],
)
def test_lm_eval_knows_zoobench_once_its_models_are_imported(
    tmp_path: Path, module: str, content: str, paths: list[str], code: str, said: str
) -> None:
    """In a fresh Python with a folder of installed packages, in which ours is one or is not."""
    files = {"__init__": "", "api/__init__": "", "api/registry": REGISTRY, "models/__init__": "", module: content}
    for name, text in files.items():
        file = tmp_path / "lm_eval" / f"{name or '__init__'}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / LINE.name).write_bytes(LINE.read_bytes())
    before = f"import site, sys; sys.path[:0] = {paths!r}; site.addsitedir({str(tmp_path)!r}); "
    done = subprocess.run([sys.executable, "-I", "-S", "-c", before + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert said in " ".join((done.stdout + done.stderr).split())


def test_it_ships_as_one_line_beside_the_packages() -> None:
    assert f'"{LINE.relative_to(ROOT).as_posix()}" = "{LINE.name}"' in (ROOT / "pyproject.toml").read_text()
    (line,) = LINE.read_text().splitlines()
    assert line.startswith("import ")


def test_the_lm_eval_that_is_installed() -> None:
    pytest.importorskip("lm_eval")
    from importlib.metadata import entry_points

    import lm_eval.models  # noqa: F401
    from lm_eval.api.registry import model_registry

    from harness.lm_eval import hook

    hook.register()
    assert "zoobench" in model_registry
    assert all(point.value == hook.TARGET for point in entry_points(group="lm_eval.models", name="zoobench"))

"""The harness is made of stages, each of which imports only those before it; nothing imports itself in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import harness

ROOT = Path(harness.__file__).parent
STAGES = (
    ("errors", "version", "units", "machine", "processes", "isolation", "executors"),
    *("records", "stats", "table", "gates", "suite", "plan", "training", "lm_eval", "loggers", "execute"),
    *("board", "sharing", "claims"),
    *("bench", "catalog", "site"),
    "commands",
)
"""In the order in which they build on each other."""


def stage(module):
    """Where a module stands; what is not listed comes last."""
    top = module.split(".")[1] if "." in module else ""
    return next((i for i, names in enumerate(STAGES) if top == names or top in names), len(STAGES))


def imports(tree, *, within_functions):
    """The modules of the harness that a piece of code imports when it runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("harness."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "harness":
            inner = [f"{node.module}.{name.name}" for name in node.names]
            yield from (name if is_module(name) else node.module for name in inner)
        elif within_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imports(node, within_functions=within_functions)


def is_module(name):
    path = ROOT.parent / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        if name != "harness":
            yield name, ast.parse(path.read_text())


def test_each_stage_imports_only_those_before_it():
    backwards = [
        f"{name} imports {found}"
        for name, tree in modules()
        for found in imports(tree, within_functions=True)
        if stage(found) > stage(name)
    ]
    assert backwards == []


def test_no_circle_of_imports():
    graph = {name: {*imports(tree, within_functions=False)} - {name, "harness"} for name, tree in modules()}
    TopologicalSorter(graph).prepare()

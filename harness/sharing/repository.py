"""A repository for a board of one's own: its suite, how others contribute, and what a git host does with it."""

import re
from pathlib import Path

from harness.errors import UserError
from harness.suite.load import shipped
from harness.suite.schema import NAME
from harness.version import __version__
from zoo import files

FILES = {
    "README.md": "README.md.j2",
    "CONTRIBUTING.md": "CONTRIBUTING.md.j2",
    "requirements.txt": "requirements.txt.j2",
    ".gitignore": "gitignore.j2",
    ".github/workflows/review.yml": "review.yml.j2",
    ".github/workflows/site.yml": "site.yml.j2",
}
"""The files of a repository, and the templates they are made from; the suite is beside them, `<name>.yaml`."""


def write_repository(name: str, folder: Path = Path()) -> list[Path]:
    """Write a repository into a new folder `name`; its files.

    Raises:
        UserError: the name cannot be a suite's, is one that ships, or is in the way.
    """
    from jinja2 import Environment, PackageLoader

    if not re.fullmatch(NAME, name):
        raise UserError(f"{name!r} cannot be a suite's name: use letters, digits, '.', '_' and '-'")
    if name in shipped():
        raise UserError(f"{name!r} is a suite that ships; choose another name")
    root = folder / name
    if root.exists():
        raise UserError("is in the way; nothing was written", file=root)
    templates = PackageLoader("harness.commands", "templates/board")
    environment = Environment(loader=templates, keep_trailing_newline=True)
    for file, template in {f"{name}.yaml": "suite.yaml.j2", **FILES}.items():
        path = root / file
        files.write(path, environment.get_template(template).render(name=name, version=__version__))
    return sorted(path for path in root.rglob("*") if path.is_file())

"""The equation of an architecture: what stands in its file's docstring, read without importing it."""

import ast
import re
import textwrap
from pathlib import Path

from zoo import architectures


def equations(name: str) -> list[str]:
    """The lines of the first indented block in the docstring of an architecture's file, in Unicode; none without one.

    Raises:
        KeyError: unknown architecture.
    """
    file = Path(architectures.file_of(name))
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")), clean=False) if file.is_file() else None
    block = re.search(r"\n\n((?: +\S.*(?:\n|$))+)", doc or "")
    return [line.rstrip() for line in textwrap.dedent(block[1]).splitlines()] if block else []

"""`python -m harness` is `zoobench`: as there, no module comes from the working directory."""

import os
import sys
from pathlib import Path

if sys.path[0] in ("", os.getcwd()) and Path.cwd() != Path(__file__).resolve().parents[1]:
    del sys.path[0]

from harness.commands import entry

if __name__ == "__main__":
    entry()

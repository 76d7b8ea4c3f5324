"""`python -m harness` is `zoobench`: as there, no module comes from the working directory."""

import os
import sys

if sys.path[0] in ("", os.getcwd()) and os.getcwd() != os.path.dirname(os.path.dirname(os.path.realpath(__file__))):
    del sys.path[0]

from harness.commands import entry

if __name__ == "__main__":
    entry()

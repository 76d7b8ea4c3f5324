"""`python -m harness` is `zoobench`."""

from harness.commands import main

if __name__ == "__main__":
    main(prog_name="zoobench")

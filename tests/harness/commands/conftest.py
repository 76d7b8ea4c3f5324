"""The command line as a person types it, in this process."""

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from harness.commands import main


@pytest.fixture
def call() -> Callable[..., Result]:
    """Runs a command and checks its exit status; an error must be a UserError's one line."""

    def run(*arguments: object, status: int = 0, text: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=text)
        assert result.exit_code == status, (result.exception, result.output)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run

"""What needs data that is not on this machine is skipped."""

from collections.abc import Iterator

import pytest

from tasks import DataError


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        _skip(error)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Iterator[None]:
    try:
        return (yield)
    except DataError as error:
        _skip(error)


def _skip(error: DataError) -> None:
    if "is not here" not in str(error) and "pip install" not in str(error):
        raise error
    pytest.skip(str(error))

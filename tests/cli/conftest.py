"""The command in this process."""

import pytest

from smoothed.cli.main import main


@pytest.fixture
def run():
    """A function from arguments to the exit code of the command."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return stop.value.code

    return run

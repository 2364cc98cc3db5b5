"""Tests that need a command which a machine may lack: skipped there, but failed in CI."""

import os
import shutil

import pytest

CHROMIUM = ("chromium", "google-chrome")
COMPILER = ("g++",)
GO = ("go",)


def find_command(names: tuple[str, ...]) -> str | None:
    """The path of the first of these commands that is installed."""
    return next((path for name in names if (path := shutil.which(name))), None)


def needs(names: tuple[str, ...]) -> pytest.MarkDecorator:
    """A mark for tests that need one of these commands."""
    return pytest.mark.needs_command(names)


def check_commands(item: pytest.Item) -> None:
    """Skips a test whose command is missing, or fails it where `CI` is true.

    CI installs what the tests need: were they skipped there, nobody would see that they no longer
    run.
    """
    for mark in item.iter_markers("needs_command"):
        (names,) = mark.args
        if find_command(names) is None:
            message = f"needs {' or '.join(names)}"
            if os.environ.get("CI") == "true":
                pytest.fail(message, pytrace=False)
            pytest.skip(message)

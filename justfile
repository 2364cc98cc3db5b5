# What .ci/run checks, in the order in which it is quick to fail.
default: lint test

lint:
    uv run --extra cpu ruff check
    uv run --extra cpu ruff format --check
    uv run --extra cpu mypy

test:
    uv run --extra cpu pytest

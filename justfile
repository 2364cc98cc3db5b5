# What a change must pass before a review; `just ci` is the whole of it.
default: lint test

lint:
    uv run --extra cpu ruff check
    uv run --extra cpu ruff format --check
    uv run --extra cpu mypy
    uv run --extra cpu typos

# What proves behaviour, in a few minutes.
test:
    uv run --extra cpu pytest

# The rest: many cases, killed runs, frameworks, real weights.
slow:
    uv run --extra cpu pytest -m slow

docs:
    uv run --extra cpu --group docs mkdocs build --strict

docs-serve:
    uv run --extra cpu --group docs mkdocs serve

ci:
    bash .ci/run

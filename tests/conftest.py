"""Fixtures: tiny models. Property tests have no deadline: machines differ too much."""

import sys
from pathlib import Path

import pytest
from hypothesis import settings

from calltune.models.backend import load_blas

from support import commands_needed, tiny

if sys.platform == "linux":
    # Before a test imports MLX: real models are some forty times slower without.
    load_blas("mlx.core" in sys.modules)

settings.register_profile("calltune", deadline=None)
settings.load_profile("calltune")


def pytest_runtest_setup(item: pytest.Item) -> None:
    commands_needed.check_commands(item)


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_gemma(tmp_path_factory.mktemp("models") / "gemma")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def tuned_adapter(request: pytest.FixtureRequest) -> Path:
    """SmolLM2 135M taught two tools, kept in pytest's cache between runs."""
    from support import tuned

    return tuned.train_adapter(request.config.cache.mkdir("tuned"))

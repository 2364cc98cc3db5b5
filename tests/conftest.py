"""Fixtures: tiny models. Property tests have no deadline: machines differ too much."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from calltune.models.backend import load_openblas

from support import commands_needed, tiers, tiny

if sys.dont_write_bytecode:
    # Where bytecode is not wanted beside the sources, keep it elsewhere: every process that the
    # tests start would compile all that it imports again.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if "PYTEST_XDIST_WORKER" in os.environ:
    # Two processes with two threads each would wait for one another.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if sys.platform == "linux":
    # Before a test imports MLX: real models are some forty times slower without.
    load_openblas("mlx.core" in sys.modules)


def pytest_configure(config: pytest.Config) -> None:
    tiers.choose_tier(config)
    # Before a test's own settings are made: they take what they do not name from here.
    settings.register_profile("calltune", deadline=None, max_examples=tiers.cases(40, 200))
    settings.load_profile("calltune")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tiers.add_to_slow_tier(items)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole suite, which is what small machines have cores for.

    Files named on the command line run in this process: starting others would take longer.
    """
    is_whole = config.args_source == pytest.Config.ArgsSource.TESTPATHS
    return 2 if is_whole else 0


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

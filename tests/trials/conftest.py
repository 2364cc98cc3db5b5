"""Fixtures: servers for clients, and the packages of npm that they use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.node import install_packages
from support.running import Running, serving


@pytest.fixture(scope="session")
def node_packages(request: pytest.FixtureRequest) -> Path:
    """A folder with what package.json lists, kept in pytest's cache between runs."""
    return install_packages(
        Path(__file__).with_name("package.json"), request.config.cache.mkdir("node")
    )


@pytest.fixture(scope="module")
def tiny_server(tiny_llama: Path) -> Iterator[Running]:
    """A model of random weights: what it writes is held to the schemas, or it is noise."""
    with serving(tiny_llama, "chatml", answer_tokens=400) as running:
        yield running

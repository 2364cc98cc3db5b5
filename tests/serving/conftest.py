from collections.abc import Iterator
from pathlib import Path

import pytest

from support.running import Running, serving


@pytest.fixture(scope="package")
def small_server(tiny_llama: Path) -> Iterator[Running]:
    """One server with a short context, for all tests that need nothing else of it."""
    with serving(tiny_llama, "chatml", context_tokens=1500) as running:
        yield running

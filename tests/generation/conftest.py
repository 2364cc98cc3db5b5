from collections.abc import Iterator
from pathlib import Path

import pytest

from support import tiny
from support.random_model import Random


@pytest.fixture(scope="module")
def random_models(tiny_gemma: Path, tiny_llama: Path) -> dict[str, Random]:
    return {
        "gemma": Random(tiny_gemma, tiny.GEMMA_CONFIG, "gemma"),
        "chatml": Random(tiny_llama, tiny.LLAMA_CONFIG, "chatml"),
    }


@pytest.fixture(autouse=True)
def grammars_may_take_long() -> Iterator[None]:
    """Answers stay constrained to their end, however slow the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("calltune.generation.constraints.MAX_SECONDS", 1e9)
        yield

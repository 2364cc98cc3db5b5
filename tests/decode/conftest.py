from pathlib import Path

import pytest

import tiny
from random_model import Random


@pytest.fixture(scope="module")
def random_models(tiny_gemma: Path, tiny_llama: Path) -> dict[str, Random]:
    return {
        "gemma": Random(tiny_gemma, tiny.GEMMA_CONFIG, "gemma"),
        "chatml": Random(tiny_llama, tiny.LLAMA_CONFIG, "chatml"),
    }

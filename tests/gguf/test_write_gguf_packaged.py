"""The packaged models, written as GGUF and read back: the same weights, tokens and logits."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.utils import load_model

from calltune.gguf.read import convert
from calltune.gguf.write import write_gguf
from calltune.models.backend import choose
from calltune.models.resolve import resolve

pytestmark = [pytest.mark.real, pytest.mark.slow]

MODELS = [("pip:smollm2-135m", "chatml"), ("pip:gemma3-270m", "gemma")]


def weights(folder: Path) -> dict[str, mx.array]:
    read = mx.load(str(folder / "model.safetensors"))
    assert isinstance(read, dict)
    return read


def logits(folder: Path) -> mx.array:
    model: Any
    model, _ = load_model(folder)
    found: mx.array = model(mx.array([[2, 14937, 1201, 1083, 623, 828]]))
    return found


@pytest.mark.parametrize(("reference", "prompt_format"), MODELS)
def test_a_packaged_model_survives_the_round_trip(
    reference: str, prompt_format: str, tmp_path: Path
) -> None:
    choose("cpu")
    folder = resolve(reference, dense=True)
    convert(
        write_gguf(folder, tmp_path / "m.gguf", prompt_format, "f32"), tmp_path / "back", dense=True
    )
    (tmp_path / "m.gguf").unlink()
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        before, after = (json.loads((f / name).read_text()) for f in (folder, tmp_path / "back"))
        assert before == after, name
    back = weights(tmp_path / "back")
    before_weights = weights(folder)
    assert back.keys() == before_weights.keys()
    for name, weight in before_weights.items():
        assert mx.array_equal(back[name], weight).item(), name
    assert mx.array_equal(logits(folder), logits(tmp_path / "back")).item()

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from calltune.errors import AdapterMismatch
from calltune.generation.scheduler import Scheduler
from calltune.generation.sequence import Prompt
from calltune.models.adapters import attach_adapters, is_plain_lora
from calltune.models.backend import Backend
from calltune.models.loading import load

from support import tiny

CPU = Backend("cpu", "float32", None, "", "")


@pytest.fixture
def adapters(tiny_llama: Path, tmp_path: Path) -> list[Path]:
    # Other layers, other ranks, other scales.
    return [
        tiny.write_adapter(tiny_llama, tmp_path / "one", size=0.3, seed=1),
        tiny.write_adapter(tiny_llama, tmp_path / "two", size=0.3, layers=2, rank=8, seed=2),
    ]


def test_each_row_goes_through_the_adapter_that_is_chosen_for_it(
    tiny_llama: Path, adapters: list[Path]
) -> None:
    tokens = mx.array(np.random.default_rng(0).integers(6, 300, (4, 9)))
    alone = [load(str(tiny_llama), CPU, each).model(tokens) for each in (None, *adapters)]
    model = load(str(tiny_llama), CPU).model
    choice = attach_adapters(model, adapters, "tiny")
    assert float(mx.abs(alone[1] - alone[2]).max()) > 0.01
    for rows in ([0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [2, 0, 1, 2], [0, 1, 1, 0]):
        choice.select(rows)
        found = model(tokens)
        for index, adapter in enumerate(rows):
            expected = alone[adapter][index]
            # Relative to the logits: how float32 sums round depends on the processor's kernels.
            difference = mx.abs(found[index] - expected).max() / mx.abs(expected).max()
            assert float(difference) < 1e-5, rows


def test_rows_of_several_adapters_are_answered_together_as_alone(
    tiny_llama: Path, adapters: list[Path]
) -> None:
    beginning = np.random.default_rng(1).integers(6, 300, 90).tolist()
    asked = [Prompt(str(i), [*beginning, 7 + i], adapter=i % 3) for i in range(9)]
    model = load(str(tiny_llama), CPU).model
    choice = attach_adapters(model, adapters, "tiny")
    scheduler = Scheduler(model, frozenset(), 6, 4, adapters=choice, n_kept=2)
    for prompt in asked:
        scheduler.add(prompt)
    found = {}
    while not scheduler.is_empty:
        found |= {done.id: done.tokens for done in scheduler.step()}
    for index, folder in enumerate((None, *adapters)):
        alone = load(str(tiny_llama), CPU, folder).model
        for prompt in asked[index::3]:
            one = Scheduler(alone, frozenset(), 6, 1)
            one.add(prompt._replace(adapter=0))
            while not one.is_empty:
                for done in one.step():
                    assert found[prompt.id] == done.tokens, (prompt.id, index)


def test_an_adapter_that_is_no_plain_lora_cannot_stand_beside_others(
    tiny_llama: Path, adapters: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(adapters[0], tmp_path / "dora")
    config_file = tmp_path / "dora" / "adapter_config.json"
    config = json.loads(config_file.read_text()) | {"fine_tune_type": "dora"}
    config_file.write_text(json.dumps(config))
    assert is_plain_lora(adapters[0]) and not is_plain_lora(tmp_path / "dora")
    with pytest.raises(AdapterMismatch, match="not plain LoRA"):
        attach_adapters(load(str(tiny_llama), CPU).model, [tmp_path / "dora"], "tiny")


def test_an_adapter_of_another_model_is_refused(tiny_llama: Path, adapters: list[Path]) -> None:
    file = adapters[0] / "adapters.safetensors"
    narrow = {k: v[:-1] if k.endswith("a") else v for k, v in mx.load(str(file)).items()}
    mx.save_safetensors(str(file), narrow)
    with pytest.raises(AdapterMismatch, match="does not fit tiny"):
        attach_adapters(load(str(tiny_llama), CPU).model, adapters, "tiny")

"""calltune plan and calltune train decide the same: they ask the same dry run."""

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from calltune.commands import plan, train
from calltune.errors import OptionError
from calltune.files import write_rows
from calltune.models.cpu_math import uninstall_cpu_patches
from calltune.training import dry_run, memory_plan, saving
from calltune.training.logging import RunLogger
from calltune.training.options import TrainOptions
from calltune.training.run import Run

from support import tiny

N_SETS = 20


class Decided(NamedTuple):
    """What is compared."""

    cache: str
    cache_bytes: int
    is_dense: bool
    number_bytes: int
    n_layers: int
    n_trained: int
    iters: int
    n_valid: int
    kept_positions: int | None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows of several lengths, and a model as it is and in 4 bits."""
    folder = tmp_path_factory.mktemp("agrees")
    for name, count in (("train", 12), ("valid", 5)):
        prompts = [f"<|im_start|>user\n{'x' * 9 * i}<|im_end|>\n" for i in range(1, count + 1)]
        rows = [
            {"id": f"{name}-{i}", "text": f"{prompt}called", "completion_start": len(prompt)}
            for i, prompt in enumerate(prompts)
        ]
        write_rows(folder / f"{name}.jsonl", [row | {"format": "chatml"} for row in rows])
    tiny.write_llama(folder / "dense")
    shutil.copytree(folder / "dense", folder / "quantized")
    quantize(folder / "quantized")
    return folder


def quantize(folder: Path) -> None:
    """Give a folder of the tiny Llama weights in 4 bits."""
    model = tiny.make_model(tiny.LLAMA_CONFIG)
    nn.quantize(model, group_size=32, bits=4)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    config = tiny.LLAMA_CONFIG | {"quantization": {"group_size": 32, "bits": 4}}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLTUNE_CACHE", str(tmp_path / "cache"))
    yield
    uninstall_cpu_patches()


def random_options(rng: random.Random, place: Path) -> dict[str, Any]:
    kind = rng.choice(["lora", "lora", "rslora", "dora", "full"])
    return {
        "model": str(place / rng.choice(["dense", "quantized"])),
        "data": place,
        "device": "cpu",
        "compute": rng.choice(["auto", "dense", "quantized"]),
        "prefix_cache": rng.choice(["auto", "auto", "auto", "memory", "disk", "off"]),
        "num_layers": rng.choice([1, 1, 2, 3, -1]),
        "fine_tune_type": kind,
        "iters": rng.choice([1, 3, 50]),
        "epochs": rng.choice([None, None, 2]),
        "batch_size": rng.choice([1, 2, 5]),
        "val_batches": rng.choice([-1, 0, 1, 20]),
        "grad_checkpoint": rng.choice([True, False]),
        "dropout": rng.choice([0.0, 0.1]),
        "max_seq_length": rng.choice([90, 2048]),
        "seed": rng.randrange(1000),
    }


def planned(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Decided | str:
    """What plan goes by, or why it refuses."""
    found: list[tuple[memory_plan.Planner, memory_plan.Plan]] = []
    real = memory_plan.Planner.plan

    def noted(self: memory_plan.Planner, rows: Any, options: TrainOptions) -> memory_plan.Plan:
        found.append((self, real(self, rows, options)))
        return found[-1][1]

    with monkeypatch.context() as patched:
        patched.setattr(memory_plan.Planner, "plan", noted)
        try:
            plan.run(plan.PlanOptions(**options))
        except OptionError as error:
            return str(error)
    planner, first = found[0]
    run = first.run
    return Decided(
        cache=run.cache.mode,
        cache_bytes=run.cache.n_bytes if run.cache.mode != "off" else 0,
        is_dense=first.is_dense or not planner.shape.is_quantized,
        number_bytes=planner.number_bytes,
        n_layers=run.n_layers,
        n_trained=run.n_trained,
        iters=run.schedule.iters,
        n_valid=len(run.valid_rows),
        kept_positions=run.step.kept_positions,
    )


def trained(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Decided | str:
    """What a training does, read from its arrays after the cache is filled; or why it refuses."""
    found: list[Run] = []

    def fill(run: Run, *_: Any) -> None:
        run.fill_cache(RunLogger(1, None, shown=False))
        found.append(run)

    with monkeypatch.context() as patched:
        patched.setattr(saving, "train", fill)
        try:
            train.run(TrainOptions(**options))
        except OptionError as error:
            return str(error)
    (run,) = found
    cache = run.loader.cache
    in_memory = cache is not None and isinstance(cache._data, mx.array)
    arrays = [array for _, array in tree_flatten(run.model.layers[-1].parameters())]
    floats = [array.dtype.size for array in arrays if mx.issubdtype(array.dtype, mx.floating)]
    return Decided(
        cache="off" if cache is None else "memory" if in_memory else "disk",
        cache_bytes=0 if cache is None else cache.n_bytes,
        is_dense=not any("scales" in module for _, module in run.model.named_modules()),
        number_bytes=max(floats),
        n_layers=len(run.model.layers),
        n_trained=len(run.model.layers) - run.step.split_model.n_frozen,
        iters=run.schedule.iters,
        n_valid=len(run.valid_rows),
        kept_positions=run.step._options.kept_positions,
    )


def test_plan_and_train_decide_the_same(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, seen = random.Random(11), set[str]()
    for number in range(N_SETS):
        options = random_options(rng, place) | {"adapter_path": Path(f"adapter-{number}")}
        memory, disk = rng.choice([10**9, 10**5]), rng.choice([10**9, 0])
        monkeypatch.setattr(dry_run, "device_bytes", lambda _, memory=memory: memory)
        monkeypatch.setattr(dry_run, "free_on_disk", lambda _, disk=disk: disk)
        decided = planned(options, monkeypatch)
        assert decided == trained(options, monkeypatch), options
        seen.add("refused" if isinstance(decided, str) else decided.cache)
    assert seen == {"memory", "disk", "off", "refused"}


def test_options_of_plan_are_those_of_train() -> None:
    own = {field.name for field in fields(plan.PlanOptions)}
    assert own - {field.name for field in fields(TrainOptions)} == {"memory_gb"}

import json
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import load_adapters

from calltune.errors import ModelNotFound, OptionError
from calltune.training import adapter
from calltune.training.adapter import attach, exported, resume, save, trainable
from calltune.training.step import TrainState

from support import tiny
from support.plain import (
    CONFIGS,
    GEMMA,
    Run,
    batches,
    difference,
    named,
    quantised,
    random_rows,
    shape_of,
    start,
)

ROWS = random_rows((20, 90))
TOKENS = mx.array([[7, 8, 9, 250, 31]])


def adapted(config: dict[str, Any] = GEMMA, **changes: Any) -> Any:
    model = tiny.make_model(config)
    attach(model, shape_of(**changes), seed=1)
    return model


def after_two_steps(run: Run) -> TrainState:
    """In the first one lora_a does not move: lora_b is still 0."""
    trained = run.trained
    for batch in batches(run, 2):
        trained = run.step.step(trained, batch, 50.0, 1e-2).trained
    return trained


def test_only_the_top_layers_are_trained() -> None:
    names = set(trainable(adapted()))
    assert names and all(name.startswith("model.layers.1.") for name in names)
    assert {name.rsplit(".", 1)[1] for name in names} == {"lora_a", "lora_b"}
    everywhere = set(trainable(adapted(num_layers=-1)))
    assert {name.split(".")[2] for name in everywhere} == {"0", "1"}
    assert len(everywhere) == 2 * len(names)


def test_layers_below_the_trained_ones_are_counted() -> None:
    assert [shape_of(num_layers=n).n_frozen(2) for n in (1, 2, -1)] == [1, 0, 0]


def test_the_seed_decides_the_first_weights() -> None:
    def weights(seed: int) -> mx.array:
        model = tiny.make_model(GEMMA)
        attach(model, shape_of(), seed)
        return model.layers[1].self_attn.q_proj.lora_a

    assert mx.array_equal(weights(1), weights(1)) and not mx.array_equal(weights(1), weights(2))


def test_full_fine_tuning_trains_the_layers_themselves() -> None:
    names = set(trainable(adapted(kind="full")))
    assert {"model.layers.1.mlp.up_proj.weight", "model.layers.1.input_layernorm.weight"} <= names
    assert not any("lora" in name or "layers.0" in name for name in names)


def test_dora_trains_magnitudes_too() -> None:
    leaves = {name.rsplit(".", 1)[1] for name in trainable(adapted(kind="dora"))}
    assert leaves == {"lora_a", "lora_b", "m"}


def test_rslora_is_lora_divided_by_the_root_of_the_rank() -> None:
    shape = shape_of("rslora", rank=16)
    assert shape.multiplier == 5.0 and shape_of(rank=16).multiplier == 20.0
    config = shape.to_json()
    assert config["fine_tune_type"] == "lora"
    assert config["lora_parameters"] == {"rank": 16, "scale": 5.0, "dropout": 0.0}
    model = adapted(kind="rslora", rank=16)
    assert model.layers[1].mlp.up_proj.scale == 5.0


def test_modules_are_named_within_the_layer() -> None:
    model = tiny.make_model(GEMMA)
    config: Any = attach(model, shape_of(modules=("v_proj", "down_proj")), seed=1)
    assert config["lora_parameters"]["keys"] == ["mlp.down_proj", "self_attn.v_proj"]
    trained = {name.split(".", 3)[3].rsplit(".", 1)[0] for name in trainable(model)}
    assert trained == {"mlp.down_proj", "self_attn.v_proj"}


def test_a_module_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(OptionError, match="no qproj to adapt; they have down_proj, gate_proj"):
        adapted(modules=("q_proj", "qproj"))


def test_more_layers_than_there_are_is_refused() -> None:
    with pytest.raises(OptionError, match="--num-layers is 3, but the model has 2"):
        adapted(num_layers=3)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "full"])
def test_trained_weights_are_resumed_bit_for_bit(kind: Any, tmp_path: Path) -> None:
    run = start(adapted(kind=kind), shape_of(kind), ROWS)
    trained = after_two_steps(run)
    weights = named(run, trained.weights)
    save(tmp_path, weights, {})
    other = adapted(kind=kind)
    resume(other, tmp_path / "adapters.safetensors")
    again = start(other, shape_of(kind), ROWS)
    assert again.trained.weights.keys() == trained.weights.keys()
    for name, value in again.trained.weights.items():
        assert mx.array_equal(value, trained.weights[name]), name
        assert not mx.array_equal(value, run.trained.weights[name]), name
    back = named(again, again.trained.weights)
    assert all(mx.array_equal(back[name], weights[name]) for name in weights)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "full"])
@pytest.mark.parametrize("name", CONFIGS)
def test_mlx_lm_loads_what_was_trained_and_computes_the_same(
    name: str, kind: Any, tmp_path: Path
) -> None:
    shape = shape_of(kind)
    model = tiny.make_model(CONFIGS[name])
    config = attach(model, shape, seed=1)
    run = start(model, shape, ROWS)
    trained = after_two_steps(run)
    save(tmp_path, named(run, trained.weights), config)
    other = tiny.make_model(CONFIGS[name])
    base = other(TOKENS)
    loaded = load_adapters(other, str(tmp_path))(TOKENS)
    run.step.loss(trained.weights, batches(run, 1)[0])
    assert difference(model(TOKENS), loaded) < 1e-5
    assert difference(base, loaded) > 1e-2


def test_mlx_lm_loads_an_adapter_of_some_modules(tmp_path: Path) -> None:
    shape = shape_of(modules=("q_proj", "up_proj"))
    model = quantised(GEMMA)
    config = attach(model, shape, seed=1)
    run = start(model, shape, ROWS)
    trained = after_two_steps(run)
    save(tmp_path, named(run, trained.weights), config)
    loaded = load_adapters(quantised(GEMMA), str(tmp_path))
    run.step.loss(trained.weights, batches(run, 1)[0])
    assert difference(model(TOKENS), loaded(TOKENS)) < 1e-5
    assert len(tree_flatten(loaded.model.layers[1].self_attn.k_proj.parameters())) == 3


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    model = adapted()
    for number in (5, 10, 15):
        save(tmp_path, trainable(model), {"num_layers": 1}, number, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0000010_adapters.safetensors",
        "0000015_adapters.safetensors",
        "adapter_config.json",
        "adapters.safetensors",
    ]
    newest = tmp_path / "0000015_adapters.safetensors"
    assert newest.read_bytes() == (tmp_path / "adapters.safetensors").read_bytes()
    assert json.loads((tmp_path / "adapter_config.json").read_text()) == {"num_layers": 1}


def test_resuming_from_nothing_or_from_another_shape_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "adapters.safetensors"
    with pytest.raises(ModelNotFound, match="No adapter file .*to resume from"):
        resume(adapted(), file)
    save(tmp_path, trainable(adapted(rank=8)), {})
    with pytest.raises(ModelNotFound, match="another model, --num-layers or rank") as caught:
        resume(adapted(), file)
    assert re.search(r"lora_[ab] is \[.*8.*\], and here \[", str(caught.value))
    one, *others = trainable(adapted()).items()
    for found, said in ((dict(others), f"it lacks {one[0]}"), ({"x": one[1]}, "it has x, which")):
        save(tmp_path, found, {})
        with pytest.raises(ModelNotFound, match=said):
            resume(adapted(), file)
    save(tmp_path, {"base_model.model.model.layers.0.q_proj.lora_A.weight": one[1]}, {})
    with pytest.raises(ModelNotFound, match="PEFT; convert it with calltune export --to adapter"):
        resume(adapted(), file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelNotFound, match="cut short or no safetensors file"):
        resume(adapted(), file)


def test_weights_that_are_not_packed_are_exported_as_they_are() -> None:
    model = adapted(kind="dora")
    adapter.pack_layers(model)
    weights = trainable(model)
    assert exported(model, weights) == weights

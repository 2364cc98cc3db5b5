from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from calltune.errors import ModelNotFound, OptionError
from calltune.tune.adapter import AdapterShape, attach, checkpointed, resume, save

import tiny

LORA = AdapterShape("lora", num_layers=1, rank=4, scale=20.0, dropout=0.0)


def adapted(shape: AdapterShape = LORA) -> Any:
    model = tiny.make_model(tiny.GEMMA_CONFIG)
    attach(model, shape, seed=1)
    return model


def test_only_the_top_layers_are_trained() -> None:
    names = [name for name, _ in tree_flatten(adapted().trainable_parameters())]
    assert names and all(name.startswith("model.layers.1.") for name in names)
    assert {name.rsplit(".", 1)[1] for name in names} == {"lora_a", "lora_b"}


def test_the_seed_decides_the_first_weights() -> None:
    def weights(seed: int) -> mx.array:
        model = tiny.make_model(tiny.GEMMA_CONFIG)
        attach(model, LORA, seed)
        return model.layers[1].self_attn.q_proj.lora_a

    assert mx.array_equal(weights(1), weights(1)) and not mx.array_equal(weights(1), weights(2))


def test_full_fine_tuning_trains_the_layers_themselves() -> None:
    full = adapted(AdapterShape("full", 1, 4, 20.0, 0.0))
    names = {name for name, _ in tree_flatten(full.trainable_parameters())}
    assert "model.layers.1.mlp.up_proj.weight" in names
    assert not any("lora" in name or "layers.0" in name for name in names)


def test_more_layers_than_there_are_is_refused() -> None:
    with pytest.raises(OptionError, match="--num-layers is 3, but the model has 2"):
        adapted(AdapterShape("lora", 3, 4, 20.0, 0.0))


def test_saved_weights_are_resumed_bit_for_bit(tmp_path: Path) -> None:
    model = adapted()
    projection = model.layers[1].self_attn.q_proj
    projection.lora_b = mx.random.normal(projection.lora_b.shape)
    path = save(model, tmp_path / "a", {"num_layers": 1}, iteration=7)
    assert (tmp_path / "a" / "0000007_adapters.safetensors").read_bytes() == path.read_bytes()
    other = adapted()
    resume(other, path)
    assert mx.array_equal(other.layers[1].self_attn.q_proj.lora_b, projection.lora_b)


def test_resuming_from_nothing_or_from_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="No adapter file .*nothing"):
        resume(adapted(), tmp_path / "nothing.safetensors")
    path = save(adapted(AdapterShape("lora", 1, 8, 20.0, 0.0)), tmp_path, {})
    with pytest.raises(ModelNotFound, match="another model, --num-layers or rank"):
        resume(adapted(), path)


def test_gradient_checkpointing_ends_with_its_block() -> None:
    model = adapted()
    layer_class = type(model.layers[0])
    plain = layer_class.__call__
    with checkpointed(model, enabled=True):
        assert layer_class.__call__ is not plain
    assert layer_class.__call__ is plain

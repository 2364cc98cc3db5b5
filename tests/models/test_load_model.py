import json
import shutil
from pathlib import Path
from threading import Event
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from calltune import terminal_text
from calltune.errors import AdapterMismatch, ModelNotFound
from calltune.models import loading as load_module
from calltune.models.backend import Backend
from calltune.models.loading import disable_adapter, load
from gguf import GGMLQuantizationType as Kind

from support import tiny_gguf

CPU = Backend("cpu", "float32", None, "", "")
GPU = Backend("metal", "as stored", None, "", "")
CUDA = Backend("cuda", "as stored", None, "", "")
ALL = (CPU, CUDA, GPU)
LORA = {"rank": 4, "scale": 20.0, "dropout": 0.5}


@pytest.fixture
def adapter(tiny_llama: Path, tmp_path: Path) -> Path:
    """An adapter as mlx_lm saves it, that changes what the tiny llama computes."""
    model = load(str(tiny_llama), CPU).model
    model.freeze()
    linear_to_lora_layers(model, 1, LORA)
    trainable: Any = tree_flatten(model.trainable_parameters())
    weights = {name: mx.random.normal(weight.shape) for name, weight in trainable}
    folder = tmp_path / "adapter"
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    config = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": LORA}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"model": "the-tiny-llama"}))
    return folder


def arrays(model: Any) -> dict[str, mx.array]:
    found: Any = tree_flatten(model.parameters())
    return dict(found)


def logits(model: Any) -> mx.array:
    result: mx.array = model(mx.array([[3, 4, 5]]))
    return result


def test_on_the_cpu_every_float_is_float32_and_nothing_stays_quantised(tmp_path: Path) -> None:
    tiny_gguf.write(
        tmp_path / "tiny.gguf", "gemma3", {"attn_q": Kind.Q5_0, "token_embd": Kind.Q8_0}
    )
    loaded = load(str(tmp_path / "tiny.gguf"), CPU)
    assert {array.dtype for array in arrays(loaded.model).values()} == {mx.float32}
    assert logits(loaded.model).dtype == mx.float32
    assert loaded.tokenizer.eos_token_ids == {1, 5}


def test_on_a_gpu_weights_stay_as_stored(tmp_path: Path) -> None:
    tiny_gguf.write(tmp_path / "tiny.gguf", "llama", {"attn_q": Kind.Q4_1})
    loaded = load(str(tmp_path / "tiny.gguf"), GPU)
    dtypes = {array.dtype for array in arrays(loaded.model).values()}
    assert dtypes == {mx.float16, mx.uint32}


@pytest.fixture
def quantised(tmp_path: Path) -> str:
    path = tmp_path / "quantised.gguf"
    tiny_gguf.write(path, "llama", {"attn_q": Kind.Q4_1})
    return str(path)


def is_quantised(model: Any) -> bool:
    return mx.uint32 in {array.dtype for array in arrays(model).values()}


@pytest.mark.parametrize("backend", [CPU, CUDA, GPU], ids=["cpu", "cuda", "metal"])
def test_weights_are_dequantised_or_not_as_asked(quantised: str, backend: Backend) -> None:
    models = [load(quantised, backend, compute=kind).model for kind in ("quantized", "dense")]
    assert [is_quantised(model) for model in models] == [True, False]
    one, other = (logits(model).astype(mx.float32) for model in models)
    # The same function, to the rounding of its products in float32 or float16.
    tolerance = 1e-5 if backend is CPU else 5e-3
    assert mx.abs(one - other).max() < tolerance * mx.abs(one).max()
    for model in models:
        floats = {array.dtype for array in arrays(model).values()} - {mx.uint32}
        assert floats == ({mx.float32} if backend is CPU else {mx.float16})


def test_auto_dequantises_where_dense_products_are_faster(
    quantised: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "device_bytes", lambda _: 10**9)
    kept = {b.device: is_quantised(load(quantised, b, compute="auto").model) for b in ALL}
    assert kept == {"cpu": False, "cuda": False, "metal": True}


def test_auto_leaves_weights_quantised_that_would_fill_the_gpu(
    quantised: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "device_bytes", lambda _: 1000)
    assert is_quantised(load(quantised, CUDA, compute="auto").model)


def test_without_a_word_a_gpu_keeps_weights_as_stored(quantised: str) -> None:
    kept = {b.device: is_quantised(load(quantised, b).model) for b in ALL}
    assert kept == {"cpu": False, "cuda": True, "metal": True}


def test_an_adapter_changes_the_answer_and_its_dropout_is_off(
    adapter: Path, tiny_llama: Path
) -> None:
    base = logits(load(str(tiny_llama), CPU).model)
    model = load(str(tiny_llama), CPU, adapter).model
    assert not mx.allclose(logits(model), base).item()
    assert mx.array_equal(logits(model), logits(model)).item()


def test_a_float32_adapter_leaves_activations_in_the_stored_type(
    adapter: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "half"
    shutil.copytree(tiny_llama, folder)
    weights = mx.load(str(tiny_llama / "model.safetensors"))
    assert isinstance(weights, dict)
    halves = {name: weight.astype(mx.float16) for name, weight in weights.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), halves)
    assert logits(load(str(folder), GPU, adapter).model).dtype == mx.float16


def test_an_adapter_for_another_model_names_both(adapter: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    tiny_gguf.write(other, "gemma3")
    with pytest.raises(AdapterMismatch, match="trained for the-tiny-llama") as raised:
        load(str(other), CPU, adapter)
    assert f"does not fit {other}" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("missing", ["adapters.safetensors", "adapter_config.json"])
def test_an_adapter_folder_without_its_files_says_to_train_first(
    missing: str, adapter: Path, tiny_llama: Path
) -> None:
    (adapter / missing).unlink()
    with pytest.raises(ModelNotFound, match=rf"No {missing} in .*; train first"):
        load(str(tiny_llama), CPU, adapter)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"num_layers": 1}'])
def test_a_broken_adapter_config_is_one_line(content: str, adapter: Path, tiny_llama: Path) -> None:
    (adapter / "adapter_config.json").write_text(content)
    with pytest.raises(ModelNotFound, match="broken") as raised:
        load(str(tiny_llama), CPU, adapter)
    assert "\n" not in str(raised.value)


def test_a_broken_weights_file_is_one_line(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(tiny_llama, folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:1000])
    with pytest.raises(ModelNotFound, match="cannot be loaded"):
        load(str(folder), CPU)


def test_an_unknown_model_type_is_one_line(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(tiny_llama, folder)
    (folder / "config.json").write_text('{"model_type": "no_such_family"}')
    with pytest.raises(ModelNotFound, match="no_such_family"):
        load(str(folder), CPU)


@pytest.mark.parametrize("is_dora", [False, True])
@pytest.mark.parametrize("keys", [None, ["self_attn.q_proj", "model.embed_tokens"]])
def test_without_its_adapter_a_model_is_the_base_model_and_then_itself_again(
    tiny_llama: Path, is_dora: bool, keys: list[str] | None
) -> None:
    model = load(str(tiny_llama), CPU).model
    base = logits(model)
    linear_to_lora_layers(model, 1, LORA | ({"keys": keys} if keys else {}), is_dora)
    found: Any = tree_flatten(model.parameters())
    moved = [(name, weight + 0.5) for name, weight in found if "lora_b" in name]
    model.load_weights(moved, strict=False)
    model.eval()
    tuned = logits(model)
    assert not mx.allclose(base, tuned)
    with pytest.raises(KeyboardInterrupt), disable_adapter(model):
        assert mx.array_equal(logits(model), base)
        raise KeyboardInterrupt
    assert mx.array_equal(logits(model), tuned)
    plain = load(str(tiny_llama), CPU).model
    with disable_adapter(plain):
        assert mx.array_equal(logits(plain), base)


def test_a_model_that_loads_for_long_is_not_silent(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load(str(tiny_llama), CPU)
    assert capsys.readouterr() == ("", "")
    stored, told = load_module.load_stored, Event()

    def slow(folder: Path) -> Any:
        assert told.wait(10)
        return stored(folder)

    def write(line: str) -> None:
        assert line == f"loading {tiny_llama}, 0 s so far"
        told.set()

    monkeypatch.setattr(terminal_text, "SILENCE_S", 0.01)
    monkeypatch.setattr(terminal_text.Heartbeat.__init__, "__defaults__", (write,))
    monkeypatch.setattr(load_module, "load_stored", slow)
    load(str(tiny_llama), CPU)

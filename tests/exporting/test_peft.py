"""Adapters in PEFT's layout: the round trip is exact, and PEFT's names and shapes are kept."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from calltune.errors import ModelNotFound, OptionError
from calltune.exporting.peft import (
    PEFT_WEIGHTS,
    check_peft,
    is_peft,
    n_layers_of,
    read_peft,
    write_peft,
)
from calltune.exporting.targets import open_tuned
from calltune.models.backend import Backend
from calltune.models.loading import base_model_of, load
from calltune.training.adapter import Kind

from support import tiny

CASES = Path(__file__).parents[1] / "cases" / "tools_and_endpoint"
CPU = Backend("cpu", "float32", None, "", "")


def weights(path: Path) -> dict[str, mx.array]:
    found = mx.load(str(path))
    assert isinstance(found, dict)
    return found


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return found


def changed(folder: Path, **values: object) -> None:
    config = config_of(folder) | values
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def back(tmp_path: Path) -> Path:
    (tmp_path / "back").mkdir()
    return tmp_path / "back"


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_there_and_back_is_the_same_adapter(
    tiny_llama: Path, tmp_path: Path, there: Path, back: Path, kind: Kind
) -> None:
    adapter = tiny.write_adapter(tiny_llama, tmp_path / "adapter", kind)
    write_peft(adapter, there, "tiny")
    read_peft(there, back, str(tiny_llama), n_layers_of(tiny_llama))
    first, second = (weights(folder / "adapters.safetensors") for folder in (adapter, back))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.dtype == second[name].dtype and mx.array_equal(value, second[name])
    for key in ("fine_tune_type", "num_layers"):
        assert config_of(adapter)[key] == config_of(back)[key]
    before, after = (config_of(folder)["lora_parameters"] for folder in (adapter, back))
    assert after | {"keys": None} == before | {"keys": None}
    tokens = mx.array([[3, 4, 5]])
    logits = [load(str(tiny_llama), CPU, folder).model(tokens) for folder in (adapter, back)]
    assert mx.array_equal(*logits)


@pytest.mark.parametrize("rank", [1, 3, 7, 8, 16, 60])
@pytest.mark.parametrize("scale", [20.0, 0.1, 1 / 3, 7.0710678118654755])
def test_the_scale_comes_back_as_float32_to_the_last_bit(
    tiny_llama: Path, tmp_path: Path, there: Path, back: Path, rank: int, scale: float
) -> None:
    adapter = tiny.write_adapter(tiny_llama, tmp_path / "adapter")
    changed(adapter, lora_parameters={"rank": rank, "scale": scale, "dropout": 0.0})
    write_peft(adapter, there, "tiny")
    read_peft(there, back, "tiny", 2)
    found = config_of(back)["lora_parameters"]["scale"]
    assert mx.array(found).item() == mx.array(scale).item()
    assert found == scale or rank & (rank - 1)


def test_the_layout_is_pefts(tiny_llama: Path, tmp_path: Path, there: Path) -> None:
    write_peft(tiny.write_adapter(tiny_llama, tmp_path / "adapter", "dora"), there, "pip:tiny")
    shapes = {name: value.shape for name, value in weights(there / PEFT_WEIGHTS).items()}
    module = "base_model.model.model.layers.1.mlp.down_proj"
    # 64 in, 32 out, rank 4.
    assert shapes[f"{module}.lora_A.weight"] == (4, 64)
    assert shapes[f"{module}.lora_B.weight"] == (32, 4)
    assert shapes[f"{module}.lora_magnitude_vector"] == (32,)
    assert len(shapes) == 7 * 3
    config = config_of(there)
    assert config["peft_type"] == "LORA" and config["base_model_name_or_path"] == "pip:tiny"
    assert (config["r"], config["lora_alpha"], config["use_dora"]) == (4, 8, True)
    assert config["layers_to_transform"] == [1]
    assert config["target_modules"] == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )


def test_rslora_of_peft_is_scaled_by_the_root_of_the_rank(
    tiny_llama: Path, tmp_path: Path, there: Path, back: Path
) -> None:
    write_peft(tiny.write_adapter(tiny_llama, tmp_path / "adapter"), there, "tiny")
    changed(there, use_rslora=True, lora_alpha=10)
    read_peft(there, back, "tiny", 2)
    assert config_of(back)["lora_parameters"]["scale"] == 5.0


def test_modules_that_peft_left_alone_change_nothing(
    tiny_llama: Path, tmp_path: Path, there: Path, back: Path
) -> None:
    adapter = tiny.write_adapter(tiny_llama, tmp_path / "adapter")
    write_peft(adapter, there, "tiny")
    only = {name: value for name, value in weights(there / PEFT_WEIGHTS).items() if "q_pr" in name}
    lower = {name.replace("layers.1.", "layers.0."): value for name, value in only.items()}
    upper = {n: v for n, v in weights(there / PEFT_WEIGHTS).items() if "up_proj" in n}
    mx.save_safetensors(str(there / PEFT_WEIGHTS), lower | upper)
    read_peft(there, back, "tiny", 2)
    assert config_of(back)["num_layers"] == 2
    model = load(str(tiny_llama), CPU, back).model
    untouched = model.layers[1].self_attn.q_proj
    assert mx.all(untouched.lora_b == 0)
    assert mx.any(model.layers[0].self_attn.q_proj.lora_b != 0)
    assert mx.any(model.layers[1].mlp.up_proj.lora_b != 0)


def test_which_layout_a_folder_has(tiny_llama: Path, tmp_path: Path, there: Path) -> None:
    adapter = tiny.write_adapter(tiny_llama, tmp_path / "adapter")
    assert not is_peft(adapter) and not is_peft(there)
    write_peft(adapter, there, "tiny")
    assert is_peft(there)


def test_whole_weights_are_no_adapter(tiny_llama: Path, tmp_path: Path, there: Path) -> None:
    with pytest.raises(OptionError, match="--to mlx"):
        write_peft(tiny.write_adapter(tiny_llama, tmp_path / "adapter", "full"), there, "tiny")


@pytest.mark.parametrize(
    ("start", "name"),
    [
        ("pissa", "PiSSA"),
        ("pissa_niter_16", "PiSSA"),
        ("PiSSA", "PiSSA"),
        ("olora", "OLoRA"),
        ("corda", "CorDA"),
        ("loftq", "LoftQ"),
        ("lora_ga", "LoRA-GA"),
        ("something_new", "calltune does not know"),
        ({"a": 1}, "calltune does not know"),
    ],
)
def test_an_adapter_of_changed_base_weights_is_refused(
    tiny_llama: Path, tmp_path: Path, there: Path, back: Path, start: Any, name: str
) -> None:
    write_peft(tiny.write_adapter(tiny_llama, tmp_path / "adapter"), there, "tiny")
    changed(there, init_lora_weights=start)
    with pytest.raises(OptionError, match=f"has init_lora_weights .*: .*{name}") as caught:
        read_peft(there, back, "tiny", 2)
    assert "\n" not in str(caught.value) and json.dumps(start)[:9] in str(caught.value)
    assert list(back.iterdir()) == []


@pytest.mark.parametrize(
    "start", [True, False, None, "gaussian", "Gaussian", "eva", "orthogonal", "mica"]
)
def test_how_an_adapter_was_begun_does_not_matter_otherwise(
    tiny_llama: Path, tmp_path: Path, there: Path, back: Path, start: Any
) -> None:
    write_peft(tiny.write_adapter(tiny_llama, tmp_path / "adapter"), there, "tiny")
    changed(there, init_lora_weights=start)
    read_peft(there, back, "tiny", 2)
    assert (back / "adapters.safetensors").exists()


def test_the_reported_adapter_is_refused_before_its_base_is_fetched(tmp_path: Path) -> None:
    """Its weights are not among the cases; the configuration is enough."""
    case = CASES / "21-peft" / "pissa"
    with pytest.raises(OptionError, match="PiSSA changes the base model's weights"):
        open_tuned(case, None, None, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"bias": "lora_only"}, "bias .*lora_only"),
        ({"lora_bias": True}, "lora_bias"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_what_mlx_lm_has_nothing_like_is_refused(
    tiny_llama: Path, tmp_path: Path, there: Path, back: Path, change: Any, message: str
) -> None:
    write_peft(tiny.write_adapter(tiny_llama, tmp_path / "adapter"), there, "tiny")
    changed(there, **change)
    with pytest.raises(OptionError, match=message):
        read_peft(there, back, "tiny", 2)


@pytest.mark.parametrize("change", [{"r": None}, {"r": 0}, {"lora_alpha": "8"}])
def test_a_configuration_without_its_numbers_is_told(
    tiny_llama: Path, tmp_path: Path, there: Path, change: Any
) -> None:
    write_peft(tiny.write_adapter(tiny_llama, tmp_path / "adapter"), there, "tiny")
    changed(there, **change)
    with pytest.raises(ModelNotFound, match="has r .* and lora_alpha .*, which must be numbers"):
        check_peft(there)


def test_an_adapter_of_peft_elsewhere_is_told_what_it_needs(
    tiny_llama: Path, tmp_path: Path, there: Path
) -> None:
    write_peft(tiny.write_adapter(tiny_llama, tmp_path / "adapter"), there, "tiny")
    for use in (lambda: load(str(tiny_llama), CPU, there), lambda: base_model_of(there)):
        with pytest.raises(ModelNotFound, match="Face's PEFT; convert it with calltune export"):
            use()
    (there / PEFT_WEIGHTS).rename(there / "adapter_model.bin")
    with pytest.raises(
        ModelNotFound, match=f"adapter_model.bin.*save the adapter .*{PEFT_WEIGHTS}"
    ):
        check_peft(there)
    (there / "adapter_model.bin").unlink()
    with pytest.raises(ModelNotFound, match="missing, cut short or no safetensors file"):
        open_tuned(there, str(tiny_llama), None, tmp_path)


def test_layers_of_another_model_and_broken_files_are_told(
    tiny_llama: Path, tmp_path: Path, there: Path, back: Path
) -> None:
    write_peft(tiny.write_adapter(tiny_llama, tmp_path / "adapter"), there, "tiny")
    with pytest.raises(OptionError, match="does not have"):
        read_peft(there, back, "tiny", 1)
    (there / PEFT_WEIGHTS).write_bytes(b"short")
    with pytest.raises(ModelNotFound, match="cut short"):
        read_peft(there, back, "tiny", 2)

import errno
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

from calltune.errors import ModelNotFound, OutputError
from calltune.gguf import read
from calltune.gguf.read import convert
from calltune.models.dense import dequantize
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter

from support import tiny_gguf

ARCHITECTURES = ["llama", "gemma3"]
MIXED = {
    "token_embd": Kind.Q8_0,
    "attn_q": Kind.Q5_0,
    "attn_k": Kind.Q4_0,
    "attn_v": Kind.Q5_1,
    "ffn_gate": Kind.Q4_1,
    "attn_output": Kind.F16,
}


def float32_weights(folder: Path) -> dict[str, mx.array]:
    model, _ = load_model(folder, lazy=True)
    dequantize(model)
    return dict(tree_flatten(model.parameters()))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_dense_conversion_gives_back_the_weights_of_the_model(arch: str, tmp_path: Path) -> None:
    weights = tiny_gguf.write(tmp_path / "tiny.gguf", arch)
    convert(tmp_path / "tiny.gguf", tmp_path / "model", dense=True)
    read = float32_weights(tmp_path / "model")
    assert read.keys() == weights.keys()
    for name, weight in weights.items():
        assert np.array_equal(np.array(read[name]), weight), name


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_quantised_modules_are_what_the_dense_folder_has(arch: str, tmp_path: Path) -> None:
    tiny_gguf.write(tmp_path / "tiny.gguf", arch, MIXED)
    convert(tmp_path / "tiny.gguf", tmp_path / "stored")
    convert(tmp_path / "tiny.gguf", tmp_path / "dense", dense=True)
    config = json.loads((tmp_path / "stored" / "config.json").read_text())
    modules = {name for name in config["quantization"] if name.startswith("model.")}
    assert len(modules) == 1 + 4 * tiny_gguf.N_LAYERS
    read, exact = float32_weights(tmp_path / "stored"), float32_weights(tmp_path / "dense")
    for module in modules:
        name = f"{module}.weight"
        # bfloat16 rounds Gemma's scales and minima by up to 2**-8 each, and scale * q spans twice
        # the largest number.
        tolerance = 3 * 2**-8 if arch == "gemma3" else 0
        apart = np.array(read[name]) - np.array(exact[name])
        assert np.abs(apart).max() <= tolerance * np.abs(exact[name]).max(), name


@pytest.mark.parametrize(("arch", "dtype"), [("llama", mx.float16), ("gemma3", mx.bfloat16)])
def test_a_mixed_folder_computes_in_one_dtype(arch: str, dtype: mx.Dtype, tmp_path: Path) -> None:
    tiny_gguf.write(tmp_path / "tiny.gguf", arch, MIXED)
    convert(tmp_path / "tiny.gguf", tmp_path / "model")
    model: Any
    model, _ = load_model(tmp_path / "model")
    logits = model(mx.array([[1, 2, 3]]))
    assert logits.dtype == dtype
    assert mx.isfinite(logits).all().item()


def test_gemma_config_carries_what_the_file_leaves_out(tmp_path: Path) -> None:
    tiny_gguf.write(tmp_path / "tiny.gguf", "gemma3")
    convert(tmp_path / "tiny.gguf", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["model_type"] == "gemma3_text"
    assert config["eos_token_id"] == [1, 5]
    assert config["rope_local_base_freq"] == 10000
    assert config["sliding_window_pattern"] == 6
    assert (config["sliding_window"], config["head_dim"]) == (16, tiny_gguf.HEAD)
    assert config["rms_norm_eps"] == 1e-5


def test_a_conversion_that_breaks_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_gguf.write(tmp_path / "tiny.gguf", "llama")

    def full_disk(*_: object) -> None:
        raise OutputError(f"errno {errno.ENOSPC}")

    monkeypatch.setattr(read, "write_json", full_disk)
    with pytest.raises(OutputError):
        convert(tmp_path / "tiny.gguf", tmp_path / "models" / "model")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_finished_folder_is_left_alone(tmp_path: Path) -> None:
    tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    convert(tmp_path / "tiny.gguf", tmp_path / "model")
    before = (tmp_path / "model" / "config.json").stat().st_mtime_ns
    convert(tmp_path / "tiny.gguf", tmp_path / "model")
    assert (tmp_path / "model" / "config.json").stat().st_mtime_ns == before


def test_another_architecture_is_named(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "other.gguf", "mamba")
    writer.add_tensor("token_embd.weight", np.zeros((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelNotFound, match=r"other\.gguf: its architecture is mamba"):
        convert(tmp_path / "other.gguf", tmp_path / "model")


@pytest.mark.parametrize("n_bytes", [0, 3, 100, 20_000])
def test_a_cut_file_is_refused(n_bytes: int, tmp_path: Path) -> None:
    tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    whole = (tmp_path / "tiny.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:n_bytes])
    with pytest.raises(ModelNotFound, match=r"cut\.gguf"):
        convert(tmp_path / "cut.gguf", tmp_path / "model")
    assert not (tmp_path / "model").exists()

"""What is written is read back as it was: tensors, fields, logits."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model

from calltune.errors import ModelNotFound, OutputError
from calltune.gguf import write as exported
from calltune.gguf.read import convert
from calltune.gguf.write import OutType, write_gguf
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader, dequantize

from support import tiny_gguf

FORMAT_OF = {"llama": "chatml", "gemma3": "gemma"}
MATRIX, VECTOR = "blk.2.attn_k.weight", "blk.2.ffn_norm.weight"


@pytest.fixture(scope="module", params=FORMAT_OF)
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(arch: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny GGUF file that stands beside it as tiny.gguf."""
    root = tmp_path_factory.mktemp(arch)
    tiny_gguf.write(root / "tiny.gguf", arch)
    convert(root / "tiny.gguf", root / "model", dense=True)
    return root / "model"


def tensors(file: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in GGUFReader(file).tensors}


def numbers(tensor: Any) -> np.ndarray:
    return dequantize(tensor.data, tensor.tensor_type)


def fields(file: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(file).fields.items()}


def weights(folder: Path) -> dict[str, mx.array]:
    read = mx.load(str(folder / "model.safetensors"))
    assert isinstance(read, dict)
    return read


def changed(folder: Path, copy: Path, **config: Any) -> Path:
    """A copy of a model folder with other entries in its config; None takes one out."""
    shutil.copytree(folder, copy)
    document = json.loads((copy / "config.json").read_text()) | config
    document = {key: value for key, value in document.items() if value is not None}
    (copy / "config.json").write_text(json.dumps(document))
    return copy


def logits(folder: Path) -> mx.array:
    model: Any
    model, _ = load_model(folder)
    found: mx.array = model(mx.array([[1, 2, 3, 7, 4, 9]]))
    return found


def test_a_file_made_of_a_folder_has_the_tensors_of_the_file_it_came_from(
    folder: Path, arch: str, tmp_path: Path
) -> None:
    written = tensors(write_gguf(folder, tmp_path / "m.gguf", FORMAT_OF[arch], "f32"))
    came_from = tensors(folder.parent / "tiny.gguf")
    assert written.keys() == came_from.keys()
    for name, tensor in came_from.items():
        assert written[name].shape.tolist() == tensor.shape.tolist()
        assert np.array_equal(numbers(written[name]), numbers(tensor)), name


def test_it_has_the_fields_of_the_file_it_came_from(
    folder: Path, arch: str, tmp_path: Path
) -> None:
    written = fields(write_gguf(folder, tmp_path / "m.gguf", FORMAT_OF[arch], "f32"))
    came_from = fields(folder.parent / "tiny.gguf")
    # Scores come of the merges' order; what they do is compared with the tokenizers.
    kept = {name for name in came_from if not name.startswith("GGUF.")}
    kept -= {"tokenizer.ggml.scores"}
    assert {name: written.get(name) for name in kept} == {name: came_from[name] for name in kept}


def test_what_llama_cpp_asks_for_is_written(folder: Path, arch: str, tmp_path: Path) -> None:
    written = fields(write_gguf(folder, tmp_path / "name.gguf", FORMAT_OF[arch], "q8_0"))
    assert written[f"{arch}.attention.key_length"] == tiny_gguf.HEAD
    assert written[f"{arch}.attention.value_length"] == tiny_gguf.HEAD
    assert written[f"{arch}.rope.dimension_count"] == tiny_gguf.HEAD
    tokens = written["tokenizer.ggml.tokens"]
    assert written[f"{arch}.vocab_size"] == len(tokens)
    end = {"llama": "<|im_end|>", "gemma3": "<end_of_turn>"}[arch]
    assert tokens[written["tokenizer.ggml.eot_token_id"]] == end
    assert (written["general.name"], written["general.file_type"]) == ("name", 7)
    template = (folder / "chat_template.jinja").read_text()
    assert written["tokenizer.chat_template"] == template


def test_a_folder_read_back_computes_the_same_logits(
    folder: Path, arch: str, tmp_path: Path
) -> None:
    own = changed(folder, tmp_path / "own")
    rng = np.random.default_rng(3)
    # Norms that 1 + weight rounds, unlike the tiny file's.
    drawn = {
        name: mx.array(rng.normal(size=weight.shape).astype(np.float32))
        if weight.ndim == 1
        else weight
        for name, weight in weights(folder).items()
    }
    mx.save_safetensors(str(own / "model.safetensors"), drawn)
    convert(
        write_gguf(own, tmp_path / "m.gguf", FORMAT_OF[arch], "f32"),
        tmp_path / "back",
        True,
    )
    assert mx.array_equal(logits(own), logits(tmp_path / "back")).item()


@pytest.mark.parametrize(("outtype", "dtype"), [("f16", mx.float16), ("bf16", mx.bfloat16)])
def test_halves_are_the_rounded_numbers(
    folder: Path, arch: str, outtype: OutType, dtype: mx.Dtype, tmp_path: Path
) -> None:
    convert(
        write_gguf(folder, tmp_path / "m.gguf", FORMAT_OF[arch], outtype),
        tmp_path / "b",
        True,
    )
    back = weights(tmp_path / "b")
    for name, weight in weights(folder).items():
        rounded = weight.astype(dtype).astype(mx.float32) if weight.ndim == 2 else weight
        assert mx.array_equal(back[name], rounded).item(), name
    assert tensors(tmp_path / "m.gguf")[VECTOR].tensor_type == Kind.F32


def test_eight_bits_are_off_by_half_a_step_at_most(folder: Path, arch: str, tmp_path: Path) -> None:
    eight = tensors(write_gguf(folder, tmp_path / "8.gguf", FORMAT_OF[arch], "q8_0"))
    exact = tensors(folder.parent / "tiny.gguf")
    assert eight[MATRIX].tensor_type == Kind.Q8_0
    blocks = numbers(exact[MATRIX]).reshape(-1, 32)
    step = np.abs(blocks).max(axis=1, keepdims=True) / 127
    apart = np.abs(numbers(eight[MATRIX]).reshape(-1, 32) - blocks)
    # The step itself is a half, so that it is off by up to 2**-11 of itself, 127 times.
    assert (apart <= step * (0.5 + 127 * 2**-11)).all()
    assert apart.max() > 0


def test_bfloat16_folders_are_written_as_they_are(folder: Path, arch: str, tmp_path: Path) -> None:
    own = changed(folder, tmp_path / "own")
    halves = {name: weight.astype(mx.bfloat16) for name, weight in weights(folder).items()}
    mx.save_safetensors(str(own / "model.safetensors"), halves)
    convert(
        write_gguf(own, tmp_path / "m.gguf", FORMAT_OF[arch], "bf16"),
        tmp_path / "b",
        True,
    )
    back = weights(tmp_path / "b")
    for name, weight in halves.items():
        assert mx.array_equal(back[name], weight.astype(mx.float32)).item(), name


def test_rows_that_are_no_whole_blocks_become_halves(tmp_path: Path, tiny_llama: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(tiny_llama, own)
    narrow = {
        name: weight[:, :48] if name.endswith("down_proj.weight") else weight
        for name, weight in weights(tiny_llama).items()
    }
    mx.save_safetensors(str(own / "model.safetensors"), narrow)
    written = tensors(write_gguf_of_bytes(own, tmp_path / "m.gguf"))
    assert written["blk.0.ffn_down.weight"].tensor_type == Kind.F16
    assert written["blk.0.ffn_up.weight"].tensor_type == Kind.Q8_0


def write_gguf_of_bytes(folder: Path, target: Path) -> Path:
    """The byte tokenizer's pre-tokenizer has no name in GGUF files; give it GPT-2's."""
    document = json.loads((folder / "tokenizer.json").read_text())
    document["pre_tokenizer"]["use_regex"] = True
    (folder / "tokenizer.json").write_text(json.dumps(document))
    return write_gguf(folder, target, "chatml", "q8_0")


def test_the_language_model_of_a_gemma_with_eyes_is_written(tmp_path: Path) -> None:
    tiny_gguf.write(tmp_path / "tiny.gguf", "gemma3")
    convert(tmp_path / "tiny.gguf", tmp_path / "text", dense=True)
    config = json.loads((tmp_path / "text" / "config.json").read_text())
    sees = changed(tmp_path / "text", tmp_path / "sees")
    whole = {"model_type": "gemma3", "text_config": config, "vision_config": {"hidden_size": 8}}
    (sees / "config.json").write_text(json.dumps(whole))
    named = {f"language_model.{name}": weight for name, weight in weights(sees).items()}
    named |= {"vision_tower.x.weight": mx.ones((2, 2)), "multi_modal_projector.y": mx.ones(2)}
    mx.save_safetensors(str(sees / "model.safetensors"), named)
    files = [
        write_gguf(tmp_path / name, tmp_path / name / "m.gguf", "gemma", "f32")
        for name in ("text", "sees")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_llama_3_stretches_its_wavelengths_as_mlx_does(tmp_path: Path, tiny_llama: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    }
    own = changed(tiny_llama, tmp_path / "own", rope_scaling=scaling, rope_theta=500_000.0)
    factors = numbers(tensors(write_gguf_of_bytes(own, tmp_path / "m.gguf"))["rope_freqs.weight"])
    lengths = 2 * np.pi * 500_000.0 ** (np.arange(0, 16, 2) / 16)
    assert factors.shape == (8,)
    assert np.allclose(factors[lengths < 1024 / 4], 1)
    assert np.allclose(factors[lengths > 1024], 8)
    between = (lengths >= 1024 / 4) & (lengths <= 1024)
    share = (1024 / lengths[between] - 1) / (4 - 1)
    assert between.any()
    assert np.allclose(1 / factors[between], (1 - share) / 8 + share)


@pytest.mark.parametrize(
    ("arch", "config", "fault"),
    [
        ("llama", {"model_type": "qwen3"}, "its architecture is qwen3, and only llama"),
        ("llama", {"quantization": {"bits": 4}}, "its weights are quantised"),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "are scaled by yarn"),
        ("llama", {"hidden_size": None}, "config.json is not whole"),
        ("llama", {"layer_types": ["sliding_attention"] * 6}, "sliding windows"),
        ("llama", {"num_hidden_layers": 7}, "has no weight model.layers.6"),
        ("gemma3", {"sliding_window_pattern": 2}, "sliding_window_pattern is 2"),
        ("gemma3", {"rope_local_base_freq": 5.0}, "rope_local_base_freq is 5.0"),
        ("gemma3", {"query_pre_attn_scalar": 9}, "query_pre_attn_scalar is 9"),
    ],
)
def test_what_cannot_be_written_is_said(
    arch: str, config: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    tiny_gguf.write(tmp_path / "tiny.gguf", arch)
    convert(tmp_path / "tiny.gguf", tmp_path / "model", dense=True)
    own = changed(tmp_path / "model", tmp_path / "own", **config)
    with pytest.raises(ModelNotFound, match=fault) as raised:
        write_gguf(own, tmp_path / "m.gguf", FORMAT_OF[arch])
    assert str(raised.value).startswith(f"Cannot write {own} as GGUF: ")
    assert not (tmp_path / "m.gguf").exists()


def test_a_weight_without_a_place_is_named(folder: Path, arch: str, tmp_path: Path) -> None:
    own = changed(folder, tmp_path / "own")
    extra = weights(folder) | {"model.layers.0.self_attn.q_proj.bias": mx.ones(64)}
    mx.save_safetensors(str(own / "model.safetensors"), extra)
    with pytest.raises(ModelNotFound, match=r"q_proj\.bias has no place"):
        write_gguf(own, tmp_path / "m.gguf", FORMAT_OF[arch])


def test_a_number_that_no_half_holds_is_not_made_infinite(
    folder: Path, arch: str, tmp_path: Path
) -> None:
    own = changed(folder, tmp_path / "own")
    name = "model.layers.1.mlp.up_proj.weight"
    large = weights(folder)
    large[name] = large[name] * 1e6
    mx.save_safetensors(str(own / "model.safetensors"), large)
    with pytest.raises(ModelNotFound, match="too large for float16; write bf16 instead"):
        write_gguf(own, tmp_path / "m.gguf", FORMAT_OF[arch], "f16")
    assert list(tmp_path.iterdir()) == [own]
    assert write_gguf(own, tmp_path / "m.gguf", FORMAT_OF[arch], "bf16").is_file()


def test_a_disk_that_is_full_leaves_the_file_that_was_there(
    folder: Path, arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "m.gguf"
    target.write_bytes(b"before")

    def full_disk(*_: object) -> None:
        raise OutputError("No space left")

    monkeypatch.setattr(exported, "quantize", full_disk)
    with pytest.raises(OutputError):
        write_gguf(folder, target, FORMAT_OF[arch])
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]

"""A fused model does what its adapter did, in whatever precision it is stored."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model, quantize_model, save_config, save_model

from calltune.exporting.fuse import Bits, Fused, fuse, write_model
from calltune.formats import FORMATS
from calltune.models.backend import Backend
from calltune.models.loading import load
from calltune.training.adapter import Kind
from calltune.types import Message, Tool, ToolCall

from support import tiny

CPU = Backend("cpu", "float32", None, "", "")
KINDS: list[Kind] = ["lora", "rslora", "dora", "full"]
TOKENS = mx.array([[3, 9, 27, 81, 5, 25, 125]])


def quantised(model: Path, folder: Path, bits: int = 4) -> Path:
    """The model in a few bits, in groups of 32."""
    made, config = load_model(model)
    made, config = quantize_model(made, config, 32, bits)
    save_model(folder, made)
    save_config(config, folder / "config.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((model / name).read_bytes())
    return folder


def logits(model: Any) -> mx.array:
    result: mx.array = model(TOKENS)
    return result


def distance(one: mx.array, other: mx.array) -> float:
    return float(mx.abs(one - other).max().item())


def arrays(model: Any) -> dict[str, mx.array]:
    found: Any = tree_flatten(model.parameters())
    return dict(found)


@pytest.mark.parametrize("kind", KINDS)
def test_fused_and_adapted_compute_the_same(tiny_llama: Path, tmp_path: Path, kind: Kind) -> None:
    adapter = tiny.write_adapter(tiny_llama, tmp_path / "a", kind)
    adapted = logits(load(str(tiny_llama), CPU, adapter).model)
    fused = fuse(tiny_llama, adapter, "tiny")
    assert distance(logits(fused.model), adapted) < 1e-5
    assert distance(adapted, logits(load(str(tiny_llama), CPU).model)) > 1e-3
    assert fused.survival == (pytest.approx(1), pytest.approx(0, abs=1e-6))


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("bits", ["dense", "float32"])
def test_a_quantised_base_dequantised_computes_the_same(
    tiny_llama: Path, tmp_path: Path, kind: Kind, bits: Bits
) -> None:
    base = quantised(tiny_llama, tmp_path / "q")
    adapter = tiny.write_adapter(base, tmp_path / "a", kind)
    adapted = logits(load(str(base), CPU, adapter).model)
    fused = fuse(base, adapter, "tiny", bits)
    assert distance(logits(fused.model), adapted) < 1e-5
    assert "quantization" not in fused.config


def test_layers_that_the_adapter_leaves_alone_stay_bit_for_bit(
    tiny_llama: Path, tmp_path: Path
) -> None:
    base = quantised(tiny_llama, tmp_path / "q")
    adapter = tiny.write_adapter(base, tmp_path / "a", "lora")
    stored = arrays(load_model(base)[0])
    for bits in ("auto", "4", "8"):
        fused = arrays(fuse(base, adapter, "tiny", bits).model)
        below = [name for name in stored if not name.startswith("model.layers.1.")]
        assert len(below) > 10
        for name in below:
            assert stored[name].dtype == fused[name].dtype
            assert mx.array_equal(stored[name], fused[name])


def test_a_change_that_rounding_swallows_is_measured(tiny_llama: Path, tmp_path: Path) -> None:
    base = quantised(tiny_llama, tmp_path / "q")
    small, large = (
        fuse(base, tiny.write_adapter(base, tmp_path / f"{size}", "lora", size), "tiny").survival
        for size in (0.01, 0.3)
    )
    assert small.kept < 0.5 and small.noise > 1 and not small.is_good
    assert large.noise < 0.5 and large.kept == pytest.approx(1, abs=0.05) and large.is_good
    eight = fuse(base, tmp_path / "0.01", "tiny", "8").survival
    assert eight.noise < small.noise / 10


@pytest.mark.parametrize(
    ("base_bits", "size", "chosen"),
    [
        (4, 0.3, "base"),
        (4, 0.01, "8"),
        (4, 0.0003, "dense"),
        (8, 0.02, "base"),
        (8, 0.0003, "dense"),
    ],
)
def test_what_is_chosen_is_the_first_that_keeps_the_change(
    tiny_llama: Path, tmp_path: Path, base_bits: int, size: float, chosen: str
) -> None:
    base = quantised(tiny_llama, tmp_path / "q", base_bits)
    fused = fuse(base, tiny.write_adapter(base, tmp_path / "a", "lora", size), "tiny", "auto")
    assert fused.bits == chosen and fused.survival.is_good
    before = fused.survival_as_base
    assert (before is None) == (chosen == "base") and not (before and before.is_good)
    stored, found = arrays(load_model(base)[0]), arrays(fused.model)
    for name in stored:
        if not name.startswith("model.layers.1."):
            assert mx.array_equal(stored[name], found[name])
    bits = {getattr(m, "bits", None) for m in fused.model.layers[1].mlp.children().values()}
    assert bits == {{"8": 8, "dense": None, "base": base_bits}[chosen]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_that_is_not_quantised_stays_as_it_is(
    tiny_llama: Path, tmp_path: Path, kind: Kind
) -> None:
    adapter = tiny.write_adapter(tiny_llama, tmp_path / "a", kind, 1e-6)
    fused = fuse(tiny_llama, adapter, "tiny", "auto")
    assert (fused.bits, fused.survival_as_base) == ("base", None)
    assert "quantization" not in fused.config


def test_a_model_of_several_precisions_is_read_as_it_was_fused(
    tiny_llama: Path, tmp_path: Path
) -> None:
    base, target = quantised(tiny_llama, tmp_path / "q"), tmp_path / "out"
    target.mkdir()
    for number, size in enumerate((0.01, 0.0003)):
        adapter = tiny.write_adapter(base, tmp_path / f"a{number}", "lora", size)
        fused = fuse(base, adapter, "tiny", "auto")
        write_model(fused, base, target, FORMATS["chatml"])
        assert mx.array_equal(logits(load_model(target)[0]), logits(fused.model))


def test_survival_is_told_by_its_definition(tiny_llama: Path, tmp_path: Path) -> None:
    base = quantised(tiny_llama, tmp_path / "q")
    adapter = tiny.write_adapter(base, tmp_path / "a", "lora")
    dense = [
        fuse(base, tiny.write_adapter(base, tmp_path / "none", "lora", 0.0), "tiny", "float32"),
        fuse(base, adapter, "tiny", "float32"),
        fuse(base, adapter, "tiny", "auto"),
    ]
    names = [n for n in arrays(dense[0].model) if "layers.1" in n and n.endswith("proj.weight")]
    before, wanted, after = (_long_vector(fused, names) for fused in dense)
    change, done = wanted - before, after - before
    kept = float((mx.sum(change * done) / mx.sum(change * change)).item())
    noise = float((mx.linalg.norm(done - change) / mx.linalg.norm(change)).item())
    assert dense[2].survival == (pytest.approx(kept, abs=1e-4), pytest.approx(noise, abs=1e-4))


def _long_vector(fused: Fused, names: list[str]) -> mx.array:
    from mlx_lm.utils import dequantize_model

    dequantize_model(fused.model)
    found = arrays(fused.model)
    return mx.concatenate([found[name].flatten() for name in names])


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("bits", ["auto", "4", "8", "dense", "float32"])
def test_what_is_written_is_what_was_fused(
    tiny_gemma: Path, tmp_path: Path, kind: Kind, bits: Bits
) -> None:
    fused = fuse(tiny_gemma, tiny.write_adapter(tiny_gemma, tmp_path / "a", kind), "tiny", bits)
    target = tmp_path / "out"
    target.mkdir()
    write_model(fused, tiny_gemma, target, FORMATS["gemma"])
    read, config = load_model(target)
    for name, value in arrays(fused.model).items():
        assert mx.array_equal(value, arrays(read)[name]), name
    is_quantised = any(isinstance(m, nn.QuantizedLinear) for m in read.modules())
    assert is_quantised == ("quantization" in config) == (bits in ("4", "8"))


def test_layers_of_other_bits_are_loaded_as_they_were_written(
    tiny_llama: Path, tmp_path: Path
) -> None:
    base = quantised(tiny_llama, tmp_path / "q")
    fused = fuse(base, tiny.write_adapter(base, tmp_path / "a", "lora"), "tiny", "8")
    target = tmp_path / "out"
    target.mkdir()
    write_model(fused, base, target, FORMATS["chatml"])
    assert mx.array_equal(logits(load_model(target)[0]), logits(fused.model))
    bits = json.loads((target / "config.json").read_text())["quantization"]
    assert bits["bits"] == 4
    assert bits["model.layers.1.mlp.up_proj"]["bits"] == 8


def test_fewer_bits_than_a_layer_has_are_taken_for_every_layer(
    tiny_llama: Path, tmp_path: Path
) -> None:
    base = quantised(tiny_llama, tmp_path / "q", bits=8)
    fused = fuse(base, tiny.write_adapter(base, tmp_path / "a", "lora"), "tiny", "4")
    found = {m.bits for m in fused.model.modules() if hasattr(m, "bits")}
    assert found == {4}


@pytest.mark.parametrize("bits", ["auto", "dense"])
def test_a_model_in_half_precision_stays_so(tmp_path: Path, bits: Bits) -> None:
    base = tiny.write_llama(tmp_path / "base")
    model, config = load_model(base)
    model.set_dtype(mx.bfloat16)
    save_model(base, model)
    adapter = tiny.write_adapter(base, tmp_path / "a", "lora")
    fused = fuse(base, adapter, "tiny", bits)
    assert {array.dtype for array in arrays(fused.model).values()} == {mx.bfloat16}
    assert 0 < fused.survival.noise < 0.5


@pytest.fixture
def chatml_folder(tiny_llama: Path, tmp_path: Path) -> Path:
    """The tiny llama with an adapter, exported for ChatML."""
    fused = fuse(tiny_llama, tiny.write_adapter(tiny_llama, tmp_path / "a"), "tiny")
    target = tmp_path / "out"
    target.mkdir()
    write_model(fused, tiny_llama, target, FORMATS["chatml"])
    return target


def test_the_folder_has_the_template_and_every_stop(chatml_folder: Path) -> None:
    chatml = FORMATS["chatml"]
    tokenizer = tokenizer_of(chatml_folder)
    stops = {tokenizer.convert_tokens_to_ids(stop) for stop in chatml.stop_tokens}
    assert tokenizer.eos_token_ids >= stops
    tool = Tool("f", "", {}, {"name": "f"})
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "q"}],
        tools=[{"type": "function", "function": tool.raw}],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert prompt == chatml.render_prompt([Message("user", "q")], [tool])


def test_mlx_lms_server_reads_calls_as_they_were_meant(chatml_folder: Path) -> None:
    from mlx_lm.generate import TextStateMachine, make_text_state_machine
    from mlx_lm.server import ToolCallFormatter

    tokenizer = tokenizer_of(chatml_folder)
    assert tokenizer.has_tool_calling
    meant = [ToolCall("f", {"x": "é </tool_call"}), ToolCall("g", {"y": [1, {"z": None}]})]
    state = make_text_state_machine(tokenizer).make_state()
    texts: dict[str, str] = {}
    written = f"Let me see.\n{FORMATS['chatml'].render_calls(meant)}"
    found: list[str] = []
    for letter in written:
        state, segments = TextStateMachine.split(state, letter)
        for kind, text in segments:
            texts[kind] = texts.get(kind, "") + text
            if kind == "normal" and texts.get("tool"):
                found.append(texts.pop("tool"))
    calls = ToolCallFormatter(tokenizer.tool_parser, None)(found)
    assert [
        ToolCall(call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in calls
    ] == meant
    assert texts["normal"].strip() == "Let me see."


def test_gemmas_answers_are_left_as_text(tiny_gemma: Path, tmp_path: Path) -> None:
    settings = json.loads((tiny_gemma / "tokenizer_config.json").read_text())
    base = tmp_path / "base"
    shutil.copytree(tiny_gemma, base)
    settings |= {"tool_parser_type": "gemma4"}
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    target = tmp_path / "out"
    target.mkdir()
    fused = fuse(base, tiny.write_adapter(base, tmp_path / "a"), "tiny")
    write_model(fused, base, target, FORMATS["gemma"])
    assert not tokenizer_of(target).has_tool_calling


def tokenizer_of(folder: Path) -> Any:
    from mlx_lm.utils import load_tokenizer

    config = json.loads((folder / "config.json").read_text())
    return load_tokenizer(folder, eos_token_ids=config["eos_token_id"])

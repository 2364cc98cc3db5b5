"""Writes a dense model folder (llama, gemma3) as one GGUF file, for llama.cpp and its users.

The file format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from gguf.gguf_writer import WriterState
from numpy.typing import NDArray

from calltune.errors import ModelNotFound
from calltune.files import atomic_write, read_json
from calltune.formats import FORMATS, Format
from calltune.gguf.config import Architecture, Dimensions
from calltune.gguf.tensors import interleave_heads, modules, permuted_heads, tensor_for_module
from calltune.gguf.write_tokenizer import add_tokenizer, read_folder
from calltune.types import Json
from gguf import (
    GGML_QUANT_SIZES,
    GGML_QUANT_VERSION,
    GGUFWriter,
    LlamaFileType,
    RopeScalingType,
    quantize,
)
from gguf import GGMLQuantizationType as Kind

_ARCHITECTURES: dict[str, Architecture] = {
    "llama": "llama",
    "gemma3_text": "gemma3",
    "gemma3": "gemma3",
}


def read_config(folder: Path) -> dict[str, Json]:
    """The fields of a folder's config.json that are about the language model.

    Raises:
        DataError: there is none, or it is not JSON.
        ModelNotFound: the architecture is another one, or the weights are quantised.
    """
    config: dict[str, Json] = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in _ARCHITECTURES:
        raise ModelNotFound(
            f"its architecture is {kind}, and only {', '.join(_ARCHITECTURES)} can be written "
            "as GGUF"
        )
    if "quantization" in config or "quantization_config" in config:
        raise ModelNotFound("its weights are quantised; make a dense folder of it first")
    own: dict[str, Json] = config | config.get("text_config", {}) | {"model_type": kind}
    return own


def dimensions_from_config(config: dict[str, Json]) -> Dimensions:
    """The model's dimensions, with mlx_lm's defaults for what the config leaves out.

    Raises:
        ModelNotFound: it asks for something that llama.cpp would compute differently.
    """
    architecture = _ARCHITECTURES[config["model_type"]]
    args = _arguments(architecture, config)
    _check_gemma(args) if architecture == "gemma3" else _check_llama(args)
    kind, factor = _scaling(args)
    if kind not in ("default", "linear", "llama3") or (kind, architecture) == ("llama3", "gemma3"):
        raise ModelNotFound(f"its positions are scaled by {kind}, which cannot be written as GGUF")
    return Dimensions(
        architecture,
        args.num_hidden_layers,
        args.hidden_size,
        args.intermediate_size,
        args.num_attention_heads,
        args.num_key_value_heads,
        args.head_dim or args.hidden_size // args.num_attention_heads,
        args.max_position_embeddings or 2048,
        args.rms_norm_eps,
        args.rope_theta,
        factor if kind == "linear" else None,
        args.sliding_window if architecture == "gemma3" else None,
    )


def add_dimensions(writer: GGUFWriter, shape: Dimensions, n_vocabulary: int) -> None:
    """Add the dimensions to the writer's fields."""
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(n_vocabulary)
    if shape.rope_factor is not None:
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_factor)
    if shape.sliding_window is not None:
        writer.add_sliding_window(shape.sliding_window)


def rope_factors(config: dict[str, Json], shape: Dimensions) -> NDArray[np.float32] | None:
    """The factors (head_size / 2,) float32 that stretch the rotary wavelengths of Llama 3.1.

    As mlx_lm computes them; None for models whose positions are not scaled that way.
    """
    if _scaling(_arguments(shape.architecture, config))[0] != "llama3":
        return None
    import mlx.core as mx
    from mlx_lm.models.rope_utils import initialize_rope

    half = mx.arange(0, shape.head_size, 2) / shape.head_size
    rope: Any = initialize_rope(
        shape.head_size, shape.rope_base, False, config["rope_scaling"], shape.context_length
    )
    return np.array(rope._freqs / shape.rope_base**half, dtype=np.float32)


def _arguments(architecture: Architecture, config: dict[str, Json]) -> Any:
    """The config as mlx_lm reads it.

    Raises:
        ModelNotFound: a size is missing.
    """
    from mlx_lm.models import gemma3_text, llama

    reader = gemma3_text.ModelArgs if architecture == "gemma3" else llama.ModelArgs
    try:
        return reader.from_dict(config)
    except TypeError as error:
        raise ModelNotFound(f"its config.json is not whole ({error}); fetch it again") from None


def _scaling(args: Any) -> tuple[str, float]:
    scaling = args.rope_scaling or {}
    kind = scaling.get("type") or scaling.get("rope_type") or "default"
    return kind, scaling.get("factor", 1.0)


def _check_llama(args: Any) -> None:
    if args.rope_traditional or set(args.layer_types) != {"full_attention"}:
        raise ModelNotFound(
            "it has traditional positions or sliding windows, which a llama GGUF cannot say"
        )


def _check_gemma(args: Any) -> None:
    """llama.cpp has these numbers in its code, not in the file."""
    # Its 27B model alone scales by another size than a head's.
    per_head = args.hidden_size // args.num_attention_heads
    scale = per_head if args.num_hidden_layers == 62 else args.head_dim
    fixed = {
        "sliding_window_pattern": 6,
        "rope_local_base_freq": 10_000,
        "query_pre_attn_scalar": scale,
    }
    for name, value in fixed.items():
        if (own := getattr(args, name)) != value:
            raise ModelNotFound(f"its {name} is {own}, and llama.cpp takes {value} for granted")


OutType = Literal["f16", "bf16", "f32", "q8_0"]

_KINDS = {"f16": Kind.F16, "bf16": Kind.BF16, "f32": Kind.F32, "q8_0": Kind.Q8_0}
_FILE_TYPES = {
    "f16": LlamaFileType.MOSTLY_F16,
    "bf16": LlamaFileType.MOSTLY_BF16,
    "f32": LlamaFileType.ALL_F32,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
}
_LARGEST_HALF = 65504.0


class _Stored(NamedTuple):
    """Where a weight lies in the folder."""

    file: Path
    key: str
    shape: tuple[int, ...]


class _Planned(NamedTuple):
    """A tensor to write: its name and kind in the file, and what it is made of."""

    name: str
    kind: Kind
    module: str
    weight: _Stored


def write_gguf(folder: Path, target: Path, prompt_format: str, outtype: OutType = "f16") -> Path:
    """Write the dense model in `folder` to the file `target`, whole or not at all, and return it.

    `prompt_format` is the name of the format that the model was tuned in: it says which token ends
    an answer, and whether BOS goes before a prompt. Matrices are of type `outtype`, vectors are
    float32; with q8_0, matrices whose rows are not a whole number of blocks of 32 are float16.

    Raises:
        ModelNotFound: the folder holds no model, or one that cannot be written.
        OutputError: the file cannot be written.
    """
    try:
        _export(folder, target, FORMATS[prompt_format], outtype)
    except ModelNotFound as error:
        raise ModelNotFound(f"Cannot write {folder} as GGUF: {error}") from None
    return target


def _export(folder: Path, target: Path, prompt_format: Format, outtype: OutType) -> None:
    config = read_config(folder)
    shape = dimensions_from_config(config)
    planned = list(_plan(folder, shape, config.get("tie_word_embeddings", True), outtype))
    n_vocabulary = next(p.weight.shape[0] for p in planned if p.name == "token_embd.weight")
    writer = GGUFWriter(None, shape.architecture)
    writer.add_type("model")
    writer.add_name(target.stem)
    writer.add_file_type(_FILE_TYPES[outtype])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    add_dimensions(writer, shape, n_vocabulary)
    add_tokenizer(writer, read_folder(folder, prompt_format, n_vocabulary))
    factors = rope_factors(config, shape)
    with atomic_write(target) as file:
        _write(file, writer, planned, shape, factors)


def _plan(folder: Path, shape: Dimensions, is_tied: bool, outtype: OutType) -> Iterator[_Planned]:
    weights = _weights(folder)
    if is_tied and shape.architecture == "llama":
        weights.pop("lm_head.weight", None)
    for module in [*modules(shape.architecture, shape.n_layers), "lm_head"]:
        weight = weights.pop(f"{module}.weight", None)
        if weight is not None:
            tensor = tensor_for_module(module, shape.architecture)
            yield _Planned(f"{tensor}.weight", _kind(weight.shape, outtype), module, weight)
        elif module != "lm_head":
            raise ModelNotFound(f"it has no weight {module}.weight; fetch it again")
    if weights:
        raise ModelNotFound(
            f"its weight {min(weights)} has no place in a {shape.architecture} GGUF"
        )


def _weights(folder: Path) -> dict[str, _Stored]:
    """The language model's weights by mlx_lm's names.

    Raises:
        ModelNotFound: there are none, or a file is broken.
    """
    import mlx.core as mx

    found: dict[str, _Stored] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        try:
            read = mx.load(str(file))
        except RuntimeError as error:
            raise ModelNotFound(f"{file.name} cannot be read ({error}); fetch it again") from None
        assert isinstance(read, dict), file
        found |= {key: _Stored(file, key, weight.shape) for key, weight in read.items()}
    if not found:
        raise ModelNotFound("it has no model*.safetensors; check the path")
    return {
        name.removeprefix("language_model."): weight
        for name, weight in found.items()
        if not name.startswith(("vision_tower.", "multi_modal_projector."))
        and not name.endswith("rotary_emb.inv_freq")
    }


def _kind(shape: tuple[int, ...], outtype: OutType) -> Kind:
    if len(shape) == 1:
        return Kind.F32
    kind = _KINDS[outtype]
    return Kind.F16 if shape[-1] % GGML_QUANT_SIZES[kind][0] else kind


def _write(
    file: BinaryIO,
    writer: GGUFWriter,
    planned: list[_Planned],
    shape: Dimensions,
    factors: NDArray[np.float32] | None,
) -> None:
    if factors is not None:
        size = factors.nbytes
        writer.add_tensor_info("rope_freqs.weight", factors.shape, np.float32, size, Kind.F32)
    for tensor in planned:
        per_block, size = GGML_QUANT_SIZES[tensor.kind]
        n_bytes = prod(tensor.weight.shape) // per_block * size
        writer.add_tensor_info(
            tensor.name, tensor.weight.shape, np.float32, n_bytes, raw_dtype=tensor.kind
        )
    # The library would open a path of its own; this file becomes the target only when it is whole.
    writer.fout, writer.state = [file], WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        _append(file, writer, factors)
    for tensor in planned:
        _append(file, writer, quantize(_numbers(tensor, shape), tensor.kind))
    writer.write_padding(file, file.tell())


def _append(file: BinaryIO, writer: GGUFWriter, data: NDArray[np.generic]) -> None:
    writer.write_padding(file, file.tell())
    file.write(np.ascontiguousarray(data).data)


def _numbers(tensor: _Planned, shape: Dimensions) -> NDArray[np.float32]:
    """The weight as the file has it, in float32."""
    import mlx.core as mx

    # Opened anew for each weight, a file gives back the memory of those before.
    read = mx.load(str(tensor.weight.file))
    assert isinstance(read, dict), tensor
    numbers: NDArray[np.float32] = np.array(read[tensor.weight.key].astype(mx.float32))
    if shape.architecture == "gemma3" and tensor.module.endswith("norm"):
        # llama.cpp multiplies by what is there; Gemma multiplies by 1 + weight.
        numbers = numbers + np.float32(1)
    if tensor.kind == Kind.F16 and (largest := max(numbers.max(), -numbers.min())) > _LARGEST_HALF:
        raise ModelNotFound(
            f"{tensor.module} holds {largest}, too large for float16; write bf16 instead"
        )
    n_heads = permuted_heads(tensor.module, shape.architecture, shape.n_heads, shape.n_kv_heads)
    return numbers if n_heads is None else interleave_heads(numbers, n_heads)

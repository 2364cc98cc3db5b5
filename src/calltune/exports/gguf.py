"""A model folder (llama, gemma3) as one GGUF file, for llama.cpp and what is built on it."""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from gguf import GGML_QUANT_SIZES, GGML_QUANT_VERSION, GGUFWriter, LlamaFileType, quantize
from gguf import GGMLQuantizationType as Kind
from gguf.gguf_writer import WriterState
from numpy.typing import NDArray

from calltune.errors import ModelNotFound
from calltune.exports.gguf_shape import add_shape, read_config, rope_factors, shape_of
from calltune.exports.gguf_tokens import add_tokenizer, read_folder
from calltune.formats import FORMATS, Format
from calltune.jsonl import replacing
from calltune.models.gguf_config import Shape
from calltune.models.gguf_names import interleaved, modules, rotated_heads, tensor_of

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


def write_gguf(folder: Path, target: Path, family: str, outtype: OutType = "f16") -> Path:
    """Write the dense model in `folder` to the file `target`, whole or not at all; `target`.

    `family` names the format that the model was tuned in: it says which token ends an answer, and
    whether BOS goes before a prompt. Matrices are of `outtype`, vectors float32; with q8_0,
    matrices whose rows are no whole number of blocks (of 32) are float16.

    Raises:
        ModelNotFound: the folder holds no model, or one that cannot be written.
        OutputError: the file cannot be written.
    """
    try:
        _export(folder, target, FORMATS[family], outtype)
    except ModelNotFound as error:
        raise ModelNotFound(f"Cannot write {folder} as GGUF: {error}") from None
    return target


def _export(folder: Path, target: Path, family: Format, outtype: OutType) -> None:
    config = read_config(folder)
    shape = shape_of(config)
    planned = list(_plan(folder, shape, config.get("tie_word_embeddings", True), outtype))
    n_vocabulary = next(p.weight.shape[0] for p in planned if p.name == "token_embd.weight")
    writer = GGUFWriter(None, shape.family)
    writer.add_type("model")
    writer.add_name(target.stem)
    writer.add_file_type(_FILE_TYPES[outtype])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    add_shape(writer, shape, n_vocabulary)
    add_tokenizer(writer, read_folder(folder, family, n_vocabulary))
    factors = rope_factors(config, shape)
    with replacing(target) as file:
        _write(file, writer, planned, shape, factors)


def _plan(folder: Path, shape: Shape, is_tied: bool, outtype: OutType) -> Iterator[_Planned]:
    weights = _weights(folder)
    if is_tied and shape.family == "llama":
        weights.pop("lm_head.weight", None)
    for module in [*modules(shape.family, shape.n_layers), "lm_head"]:
        weight = weights.pop(f"{module}.weight", None)
        if weight is not None:
            tensor = tensor_of(module, shape.family)
            yield _Planned(f"{tensor}.weight", _kind(weight.shape, outtype), module, weight)
        elif module != "lm_head":
            raise ModelNotFound(f"it has no weight {module}.weight; fetch it again")
    if weights:
        raise ModelNotFound(f"its weight {min(weights)} has no place in a {shape.family} GGUF")


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
    shape: Shape,
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


def _numbers(tensor: _Planned, shape: Shape) -> NDArray[np.float32]:
    """The weight as the file has it, in float32."""
    import mlx.core as mx

    # Opened anew for each weight, a file gives back the memory of those before.
    read = mx.load(str(tensor.weight.file))
    assert isinstance(read, dict), tensor
    numbers: NDArray[np.float32] = np.array(read[tensor.weight.key].astype(mx.float32))
    if shape.family == "gemma3" and tensor.module.endswith("norm"):
        # llama.cpp multiplies by what is there; Gemma multiplies by 1 + weight.
        numbers = numbers + np.float32(1)
    if tensor.kind == Kind.F16 and (largest := max(numbers.max(), -numbers.min())) > _LARGEST_HALF:
        raise ModelNotFound(
            f"{tensor.module} holds {largest}, too large for float16; write bf16 instead"
        )
    n_heads = rotated_heads(tensor.module, shape.family, shape.n_heads, shape.n_kv_heads)
    return numbers if n_heads is None else interleaved(numbers, n_heads)

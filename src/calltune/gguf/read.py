"""Reads a GGUF file (llama, gemma3) and writes it as a model folder that mlx_lm loads.

The file format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calltune.errors import ModelNotFound
from calltune.files import atomic_folder, write_json
from calltune.gguf.blocks import (
    GROUP,
    Dtype,
    StoredTensor,
    dense,
    pack_bits,
    to_affine,
    to_dtype,
    write_safetensors,
)
from calltune.gguf.config import Dimensions, model_config, read_dimensions
from calltune.gguf.tensors import deinterleave_heads, module_for_tensor, modules, permuted_heads
from calltune.gguf.tokenizer import GEMMA_TEMPLATE, read_tokenizer, write_tokenizer
from calltune.types import Json
from gguf import GGUFReader, ReaderTensor


class Weights(NamedTuple):
    """Tensors to store by name, and the bits of the quantised modules among them."""

    tensors: dict[str, StoredTensor]
    bits: dict[str, int]


def convert(gguf_file: Path, folder: Path, dense: bool = False) -> None:
    """Write the model in `gguf_file` to `folder`, whole or not at all.

    Blocks that MLX can express stay quantised; the others become float16 (llama) or bfloat16
    (gemma3, whose activations overflow float16). With `dense` all weights are float32, exactly
    the numbers that the file encodes. A folder that exists already is left as it is.

    Raises:
        ModelNotFound: not a GGUF file, or one that cannot be converted.
        OutputError: the folder cannot be written.
    """
    if folder.is_dir():
        return
    reader = _open(gguf_file)
    try:
        with atomic_folder(folder) as beside:
            _write(reader, beside, dense)
    except ModelNotFound as error:
        raise ModelNotFound(f"Cannot use {gguf_file}: {error}") from None


def _open(gguf_file: Path) -> GGUFReader:
    if not gguf_file.is_file():
        raise ModelNotFound(f"No file {gguf_file}; check the path")
    try:
        return GGUFReader(gguf_file)
    except (ValueError, IndexError, KeyError) as error:
        raise ModelNotFound(
            f"{gguf_file} is not a whole GGUF file ({error}); fetch it again"
        ) from error


def _write(reader: GGUFReader, folder: Path, is_dense: bool) -> None:
    fields: dict[str, Json] = {name: field.contents() for name, field in reader.fields.items()}
    shape = read_dimensions(fields)
    is_gemma = shape.architecture == "gemma3"
    tokenizer = read_tokenizer(fields, GEMMA_TEMPLATE if is_gemma else None)
    dtype: Dtype = "F32" if is_dense else "BF16" if is_gemma else "F16"
    weights = _weights(reader, shape, dtype, is_dense)
    config = model_config(
        shape,
        n_vocabulary=int(reader.get_tensor(_position(reader, "token_embd.weight")).shape[1]),
        is_tied="lm_head.weight" not in weights.tensors,
        dtype={"F32": "float32", "F16": "float16", "BF16": "bfloat16", "U32": ""}[dtype],
    )
    stops = tokenizer.stop_tokens
    ids: dict[str, Json] = {"bos_token_id": tokenizer.bos, "pad_token_id": tokenizer.padding}
    ids |= {"eos_token_id": stops if len(stops) > 1 else stops[0]}
    if weights.bits:
        smallest = min(weights.bits.values())
        config["quantization"] = {"group_size": GROUP, "bits": smallest} | {
            module: {"group_size": GROUP, "bits": bits} for module, bits in weights.bits.items()
        }
    write_safetensors(folder / "model.safetensors", weights.tensors)
    write_tokenizer(tokenizer, folder, shape.context_length)
    write_json(folder / "generation_config.json", ids)
    write_json(folder / "config.json", config | ids)


def _position(reader: GGUFReader, name: str) -> int:
    for position, tensor in enumerate(reader.tensors):
        if tensor.name == name:
            return position
    raise ModelNotFound(f"it has no tensor {name}; fetch it again")


def _weights(reader: GGUFReader, shape: Dimensions, dtype: Dtype, is_dense: bool) -> Weights:
    weights = Weights({}, {})
    for tensor in reader.tensors:
        module = _module(tensor.name, shape.architecture)
        rows = _rows(tensor, module, shape)
        exact = None if is_dense else to_affine(tensor.tensor_type, rows)
        if exact is None:
            numbers = dense(tensor, rows)
            if shape.architecture == "gemma3" and module.endswith("norm"):
                # The file holds 1 + weight, and mlx_lm adds the 1 itself.
                numbers = numbers - np.float32(1)
            weights.tensors[f"{module}.weight"] = to_dtype(numbers, dtype)
            continue
        weights.bits[module] = exact.bits
        weights.tensors[f"{module}.weight"] = StoredTensor("U32", pack_bits(exact.q, exact.bits))
        weights.tensors[f"{module}.scales"] = to_dtype(exact.scales, dtype)
        weights.tensors[f"{module}.biases"] = to_dtype(exact.biases, dtype)
    missing = set(modules(shape.architecture, shape.n_layers)) - {
        name.removesuffix(".weight") for name in weights.tensors
    }
    if missing:
        raise ModelNotFound(f"it has no tensor for {min(missing)}; fetch it again")
    return weights


def _module(name: str, architecture: str) -> str:
    """mlx_lm's name for the module whose weight is the tensor `name`."""
    if module := module_for_tensor(name, architecture):
        return module
    raise ModelNotFound(
        f"its tensor {name} has no place in a {architecture} model here; "
        "take the model from the hub instead"
    )


def _rows(tensor: ReaderTensor, module: str, shape: Dimensions) -> NDArray[np.uint8]:
    """The tensor's rows as the file has them, in mlx_lm's order."""
    rows: NDArray[np.uint8] = tensor.data
    n_heads = permuted_heads(module, shape.architecture, shape.n_heads, shape.n_kv_heads)
    return rows if n_heads is None else deinterleave_heads(rows, n_heads)

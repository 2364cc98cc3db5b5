"""Converts tensors of a GGUF file to MLX's storage: quantised blocks where exact, else dense.

MLX's affine quantisation is `scale * q + bias` in groups of 32. The older GGUF block types are the
same function of the same integers, so they change layout and not value.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calltune.files import atomic_write
from gguf import GGMLQuantizationType, ReaderTensor, dequantize

GROUP = 32
Dtype = Literal["F32", "F16", "BF16", "U32"]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a safetensors file; bfloat16 is held as unsigned 16-bit integers."""

    dtype: Dtype
    data: NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class AffineMatrix:
    """A quantised matrix: integers `q` (rows, columns), scales and biases (rows, columns / 32)."""

    q: Bytes
    bits: int
    scales: NDArray[np.float16]
    biases: NDArray[np.float16]


def to_affine(kind: GGMLQuantizationType, blocks: Bytes) -> AffineMatrix | None:
    """A GGUF tensor's blocks (rows, bytes) as MLX's affine groups; None where that is not exact."""
    kinds = GGMLQuantizationType
    if kind not in (kinds.Q4_0, kinds.Q4_1, kinds.Q5_0, kinds.Q5_1, kinds.Q8_0):
        return None
    n_rows = blocks.shape[0]
    if kind == kinds.Q8_0:
        parts = _split(blocks, 2, 32)
        # Signed to unsigned: -128…127 becomes 0…255.
        q, bits, zero = parts[1] ^ np.uint8(0x80), 8, 128
    elif kind in (kinds.Q4_0, kinds.Q4_1):
        parts = _split(blocks, *((2, 16) if kind == kinds.Q4_0 else (2, 2, 16)))
        q, bits, zero = _nibbles(parts[-1]), 4, 8
    else:
        parts = _split(blocks, *((2, 4, 16) if kind == kinds.Q5_0 else (2, 2, 4, 16)))
        high = np.unpackbits(parts[-2], axis=-1, bitorder="little")
        q, bits, zero = _nibbles(parts[-1]) | (high << np.uint8(4)), 5, 16
    scales = _halves(parts[0])
    has_minimum = kind in (kinds.Q4_1, kinds.Q5_1)
    # A power of two times a half is exact.
    biases = _halves(parts[1]) if has_minimum else (scales * np.float16(-zero))
    return AffineMatrix(
        q.reshape(n_rows, -1), bits, scales.reshape(n_rows, -1), biases.reshape(n_rows, -1)
    )


def pack_bits(q: Bytes, bits: int) -> NDArray[np.uint32]:
    """Integers of `bits` bits (rows, columns) packed per row, little-endian, into 32-bit words."""
    if bits == 8:
        packed = q
    elif bits == 4:
        packed = q[:, 0::2] | (q[:, 1::2] << np.uint8(4))
    else:
        stream = np.unpackbits(q[..., None], axis=-1, count=bits, bitorder="little")
        packed = np.packbits(stream.reshape(q.shape[0], -1), axis=-1, bitorder="little")
    return np.ascontiguousarray(packed).view("<u4")


def dense(tensor: ReaderTensor, blocks: NDArray[np.generic]) -> NDArray[np.float32]:
    """The numbers that the tensor's blocks encode."""
    return np.asarray(dequantize(blocks, tensor.tensor_type), dtype=np.float32)


def to_dtype(numbers: NDArray[np.floating], dtype: Dtype) -> StoredTensor:
    """Numbers converted to a float type, rounded to nearest, ties to even."""
    if dtype == "F16":
        return StoredTensor(dtype, numbers.astype("<f2"))
    if dtype == "F32":
        return StoredTensor(dtype, numbers.astype("<f4"))
    assert dtype == "BF16", dtype
    bits = numbers.astype("<f4").view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return StoredTensor(dtype, (rounded >> np.uint32(16)).astype("<u2"))


def write_safetensors(path: Path, tensors: dict[str, StoredTensor]) -> None:
    """Write a safetensors file, whole or not at all."""
    header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    for name, (start, end) in zip(tensors, _offsets(tensors), strict=True):
        tensor = tensors[name]
        shape = list(tensor.data.shape)
        header[name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor.data).data)


def _offsets(tensors: dict[str, StoredTensor]) -> Iterator[tuple[int, int]]:
    start = 0
    for tensor in tensors.values():
        yield start, start + tensor.data.nbytes
        start += tensor.data.nbytes


def _split(blocks: Bytes, *widths: int) -> list[Bytes]:
    """The fields of each block, as (blocks, width)."""
    flat = blocks.reshape(-1, sum(widths))
    return np.split(flat, np.cumsum(widths)[:-1], axis=1)


def _halves(field: Bytes) -> NDArray[np.float16]:
    return np.ascontiguousarray(field).view("<f2")


def _nibbles(field: Bytes) -> Bytes:
    """16 bytes hold 32 integers: the low halves first, then the high halves."""
    return np.concatenate([field & np.uint8(0x0F), field >> np.uint8(4)], axis=1)

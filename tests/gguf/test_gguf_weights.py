from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from calltune.gguf.blocks import StoredTensor, pack_bits, to_affine, to_dtype, write_safetensors
from gguf import GGMLQuantizationType as Kind
from gguf import dequantize, quantize

EXACT = [Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0]


def random_rows() -> np.ndarray:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(48, 160)).astype(np.float32)
    rows *= np.exp(rng.normal(scale=3, size=(48, 1))).astype(np.float32)
    # A group of nothing but zeros has a scale of zero.
    rows[7, 32:64] = 0
    return rows


@pytest.mark.parametrize("kind", EXACT, ids=lambda kind: kind.name)
def test_exact_block_types_keep_every_bit_of_their_numbers(kind: Kind) -> None:
    blocks = quantize(random_rows(), kind)
    groups = to_affine(kind, blocks)
    assert groups is not None
    numbers = mx.dequantize(
        mx.array(pack_bits(groups.q, groups.bits)),
        mx.array(groups.scales.astype(np.float32)),
        mx.array(groups.biases.astype(np.float32)),
        group_size=32,
        bits=groups.bits,
    )
    assert np.array_equal(np.array(numbers), dequantize(blocks, kind))


@pytest.mark.parametrize("kind", [Kind.Q4_K, Kind.Q6_K, Kind.F16, Kind.F32], ids=lambda k: k.name)
def test_other_block_types_are_left_to_be_dense(kind: Kind) -> None:
    assert to_affine(kind, np.zeros((1, 256), np.uint8)) is None


def test_bfloat16_is_rounded_as_mlx_rounds_it() -> None:
    numbers = random_rows()
    numbers[0, :3] = [1.00390625, 1.01171875, -1.00390625]  # half-way between two neighbours
    bits = np.array(mx.array(numbers).astype(mx.bfloat16).view(mx.uint16))
    assert np.array_equal(to_dtype(numbers, "BF16").data, bits)


def test_mlx_reads_back_what_was_stored(tmp_path: Path) -> None:
    numbers = random_rows()
    words = np.arange(12, dtype=np.uint32).reshape(3, 4)
    tensors = {
        "half": to_dtype(numbers, "F16"),
        "brain": to_dtype(numbers, "BF16"),
        "words": StoredTensor("U32", words),
    }
    write_safetensors(tmp_path / "model.safetensors", tensors)
    read = mx.load(str(tmp_path / "model.safetensors"))
    assert isinstance(read, dict)
    assert {name: array.dtype for name, array in read.items()} == {
        "half": mx.float16,
        "brain": mx.bfloat16,
        "words": mx.uint32,
    }
    assert np.array_equal(np.array(read["half"]), numbers.astype(np.float16))
    assert mx.array_equal(read["brain"], mx.array(numbers).astype(mx.bfloat16)).item()
    assert np.array_equal(np.array(read["words"]), words)

"""Caches the frozen layers' output for each row, in memory or in a file, to be read in every step.

With the lower layers frozen, their output for a row never changes: not in a later epoch, not in
validation, not in another run with other rates. It is computed in bulk before training.
Prior work: AutoFreeze (arXiv 2102.01386), Skip2-LoRA (arXiv 2410.21073).
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import mlx.core as mx
import numpy as np

from calltune.data.batching import TokenRow
from calltune.errors import OptionError, OutputError
from calltune.files import atomic_write, file_digest
from calltune.models.numpy_ops import use_numpy_ops
from calltune.training.split_model import SplitModel

CacheMode = Literal["auto", "memory", "disk", "off"]
Tokens = tuple[int, ...]

MAX_BATCH_POSITIONS = 2048
"""The most positions in a batch of the computation before training, if not a single row."""


class ActivationCache:
    """Outputs of the frozen layers for rows, one after the other: N positions of D numbers."""

    def __init__(self, data: Any, dtype: mx.Dtype, starts: dict[Tokens, int]) -> None:
        """Take `data` (N, D) of type `dtype`, in which a row's outputs begin at `starts`.

        It is an MLX array, or a mapped file of unsigned integers of the size of `dtype`.
        """
        self._data = data
        self._starts = starts
        self._dtype = dtype

    @property
    def n_bytes(self) -> int:
        """The size of the cache in bytes."""
        return int(self._data.nbytes)

    def gather(self, rows: Sequence[TokenRow], shape: tuple[int, int]) -> mx.array:
        """The outputs (B, L, D) of at most B rows, where `shape` is (B, L).

        Padding holds outputs of other positions, to which no trained position attends.
        """
        n_rows, length = shape
        starts = [self._starts[row.tokens] for row in rows] + [0] * (n_rows - len(rows))
        if isinstance(self._data, mx.array) and max(starts) + length <= len(self._data):
            # Copying slices is much faster than looking up every position.
            return mx.stack([self._data[start : start + length] for start in starts])
        index = np.zeros(shape, np.int32)
        for number, row in enumerate(rows):
            n_inputs = len(row.tokens) - 1
            index[number, :n_inputs] = np.arange(starts[number], starts[number] + n_inputs)
        if isinstance(self._data, mx.array):
            return self._data[mx.array(index)]
        return mx.array(self._data[index]).view(self._dtype)


class CacheKey(NamedTuple):
    """What a cached output depends on besides the tokens."""

    model: str
    """A digest of the model's files."""
    n_frozen: int
    precision: str


def fill_cache(
    split_model: SplitModel,
    rows: Sequence[TokenRow],
    advance: Callable[[int], None],
    file: Path | None = None,
    key: CacheKey | None = None,
) -> ActivationCache:
    """The cache of these rows, in memory or in `file`.

    A file that exists, is whole and has this key is read instead of computed. Rows with equal
    tokens are computed once. `advance` is called with the number of rows done since the last call.

    Raises:
        OutputError: the file cannot be written.
    """
    starts = _starts(rows)
    if file is None:
        outputs = _outputs(split_model, starts, advance)
        data = _in_memory(outputs, count_positions(rows))
        return ActivationCache(data, data.dtype, starts)
    assert key is not None
    if (kept := _read(file, starts, key)) is None:
        _write(file, _outputs(split_model, starts, advance), count_positions(rows), key)
        kept = _read(file, starts, key)
        if kept is None:
            raise OutputError(f"{file} was written and cannot be read back; check the disk")
    return kept


def cache_file(folder: Path, key: CacheKey, rows: Sequence[TokenRow]) -> Path:
    """The file for the cache of these rows; its name is a digest of all that it depends on."""
    digest = hashlib.sha256(json.dumps(key).encode())
    for tokens in _starts(rows):
        digest.update(np.array([len(tokens), *tokens], np.int32).tobytes())
    return folder / f"{digest.hexdigest()[:32]}.prefix"


def count_positions(rows: Sequence[TokenRow]) -> int:
    """The number of positions in the cache of these rows."""
    return sum(len(tokens) - 1 for tokens in _starts(rows))


def _starts(rows: Sequence[TokenRow]) -> dict[Tokens, int]:
    """Where each row's outputs begin: short rows first, so that bulk batches pad little."""
    starts, end = {}, 0
    for tokens in sorted({row.tokens for row in rows}, key=lambda tokens: (len(tokens), tokens)):
        starts[tokens] = end
        end += len(tokens) - 1
    return starts


def _outputs(
    split_model: SplitModel, starts: dict[Tokens, int], advance: Callable[[int], None]
) -> Iterator[mx.array]:
    """The outputs of a bulk batch's rows, (n, D), batch by batch in the order of `starts`."""
    for batch in _bulk(list(starts), MAX_BATCH_POSITIONS):
        length = -(-(len(batch[-1]) - 1) // 32) * 32
        inputs = np.zeros((len(batch), length), np.int32)
        for number, tokens in enumerate(batch):
            inputs[number, : len(tokens) - 1] = tokens[:-1]
        with use_numpy_ops():
            hidden = split_model.run_frozen(mx.array(inputs))
        parts = [hidden[number, : len(tokens) - 1] for number, tokens in enumerate(batch)]
        outputs = mx.concatenate(parts)
        mx.eval(outputs)
        yield outputs
        advance(len(batch))


def _bulk(rows: list[Tokens], most: int) -> Iterator[list[Tokens]]:
    """Rows, sorted by length, in batches of at most `most` positions, or one row."""
    batch: list[Tokens] = []
    for tokens in rows:
        if batch and (len(batch) + 1) * len(tokens) > most:
            yield batch
            batch = []
        batch.append(tokens)
    if batch:
        yield batch


def _in_memory(outputs: Iterator[mx.array], n_positions: int) -> mx.array:
    data, end = None, 0
    for part in outputs:
        if data is None:
            data = mx.zeros((n_positions, part.shape[1]), part.dtype)
        # Written in place: nothing else holds the array.
        data[end : end + len(part)] = part
        end += len(part)
        mx.eval(data)
    assert data is not None, "no rows"
    return data


def _write(file: Path, outputs: Iterator[mx.array], n_positions: int, key: CacheKey) -> None:
    with atomic_write(file) as out:
        for number, part in enumerate(outputs):
            if number == 0:
                header = _header(key, n_positions, part.shape[1], part.dtype)
                out.write(json.dumps(header).encode().ljust(_HEADER_BYTES - 1) + b"\n")
            out.write(np.array(part.view(_UNSIGNED[part.dtype.size])).tobytes())


def _read(file: Path, starts: dict[Tokens, int], key: CacheKey) -> ActivationCache | None:
    """The cache in `file`; None where it is missing, truncated, or has another key."""
    n_positions = sum(len(tokens) - 1 for tokens in starts)
    try:
        with file.open("rb") as opened:
            header = json.loads(opened.read(_HEADER_BYTES))
        dtype = _DTYPES.get(str(header.get("dtype"))) if isinstance(header, dict) else None
        if dtype is None or not isinstance(width := header.get("width"), int):
            return None
        if header != _header(key, n_positions, width, dtype):
            return None
        n_bytes = _HEADER_BYTES + n_positions * width * dtype.size
        if file.stat().st_size != n_bytes:
            return None
        kind = f"uint{8 * dtype.size}"
        data = np.memmap(file, kind, "r", _HEADER_BYTES, (n_positions, width))
    except (OSError, ValueError):
        return None
    return ActivationCache(data, dtype, starts)


def _header(key: CacheKey, n_positions: int, width: int, dtype: mx.Dtype) -> dict[str, Any]:
    name = str(dtype).removeprefix("mlx.core.")
    return {"key": list(key), "positions": n_positions, "width": width, "dtype": name}


_HEADER_BYTES = 4096
_UNSIGNED = {2: mx.uint16, 4: mx.uint32}
_DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


MAX_MEMORY_SHARE = 0.25
"""The fraction of the memory that the cache may take with `auto`."""


class CachePlacement(NamedTuple):
    """Where the cache goes, how large it is, and why."""

    mode: CacheMode
    """memory, disk or off; never auto."""
    n_bytes: int
    reason: str


class CacheSource(NamedTuple):
    """The model that cached outputs are of, and the folder for files with them."""

    model_folder: Path
    precision: str
    cache_folder: Path


def choose_placement(
    n_frozen: int, n_bytes: int, mode: CacheMode, memory: int, free_disk: int
) -> CachePlacement:
    """Settle `auto` for a cache of `n_bytes` bytes.

    `memory` and `free_disk` are the bytes that a run may use and that the disk has free.

    Raises:
        OptionError: a cache was asked for and no layer is frozen.
    """
    if not n_frozen:
        if mode in ("memory", "disk"):
            raise OptionError(
                f"--prefix-cache {mode} needs frozen layers, and every layer is trained; "
                "give fewer --num-layers, or leave it out"
            )
        return CachePlacement("off", 0, "no layer is frozen")
    if mode != "auto":
        return CachePlacement(mode, n_bytes, "asked for")
    if n_bytes <= memory * MAX_MEMORY_SHARE:
        return CachePlacement("memory", n_bytes, "it fits")
    if n_bytes * 2 <= free_disk:
        return CachePlacement("disk", n_bytes, "it is too large for memory")
    return CachePlacement("off", n_bytes, "it is too large for memory and disk")


def build_cache(
    split_model: SplitModel,
    rows: Sequence[TokenRow],
    place: CachePlacement,
    source: CacheSource,
    advance: Callable[[int], None],
) -> ActivationCache | None:
    """The filled cache at its place, or None for off; frees the memory of the frozen layers."""
    if place.mode == "off":
        return None
    if place.mode == "memory":
        cache = fill_cache(split_model, rows, advance)
    else:
        key = CacheKey(_digest(source.model_folder), split_model.n_frozen, source.precision)
        file = cache_file(source.cache_folder, key, rows)
        cache = fill_cache(split_model, rows, advance, file=file, key=key)
    split_model.release_frozen()
    mx.clear_cache()
    return cache


def _digest(folder: Path) -> str:
    """A digest of a model's config and weights."""
    files = sorted([folder / "config.json", *folder.glob("*.safetensors")])
    return hashlib.sha256("".join(file_digest(file) for file in files).encode()).hexdigest()


def free_on_disk(folder: Path) -> int:
    """Bytes free on the disk of `folder`, which need not be there yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free

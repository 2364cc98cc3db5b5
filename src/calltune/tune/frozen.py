"""Where the frozen layers' output is kept in a run: in memory, in a file, or nowhere."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx

from calltune.batches import TokenRow
from calltune.errors import OptionError
from calltune.jsonl import file_digest
from calltune.tune.prefix import Key, Mode, PrefixCache, file_for, fill, positions
from calltune.tune.trunk import Trunk

MEMORY_SHARE = 0.25
"""The part of the memory that the cache may take with `auto`."""


class Place(NamedTuple):
    """Where the cache is to go."""

    mode: Mode
    """memory, disk or off."""
    n_bytes: int
    reason: str


class Source(NamedTuple):
    """What makes cached outputs this model's, and where files with them go."""

    model_folder: Path
    precision: str
    cache_folder: Path


def choose_place(
    trunk: Trunk, rows: Sequence[TokenRow], mode: Mode, memory: int, folder: Path
) -> Place:
    """Settle `auto`, for these rows and `memory` bytes.

    Raises:
        OptionError: a cache was asked for and no layer is frozen.
    """
    if not trunk.n_frozen:
        if mode in ("memory", "disk"):
            raise OptionError(
                f"--prefix-cache {mode} needs frozen layers, and every layer is trained; "
                "give fewer --num-layers, or leave it out"
            )
        return Place("off", 0, "no layer is frozen")
    output = trunk.lower(mx.zeros((1, 2), mx.int32))
    n_bytes = positions(rows) * output.shape[-1] * output.dtype.size
    if mode != "auto":
        return Place(mode, n_bytes, "asked for")
    if n_bytes <= memory * MEMORY_SHARE:
        return Place("memory", n_bytes, "it fits")
    if n_bytes * 2 <= _free_on_disk(folder):
        return Place("disk", n_bytes, "it is too large for memory")
    return Place("off", n_bytes, "it is too large for memory and disk")


def make_cache(
    trunk: Trunk,
    rows: Sequence[TokenRow],
    place: Place,
    source: Source,
    advance: Callable[[int], None],
) -> PrefixCache | None:
    """The cache at its place, filled; the frozen layers' memory is given back."""
    if place.mode == "off":
        return None
    if place.mode == "memory":
        cache = fill(trunk, rows, advance)
    else:
        key = Key(_digest(source.model_folder), trunk.n_frozen, source.precision)
        file = file_for(source.cache_folder, key, rows)
        cache = fill(trunk, rows, advance, file=file, key=key)
    trunk.release_lower()
    mx.clear_cache()
    return cache


def _digest(folder: Path) -> str:
    """A digest of a model's config and weights."""
    files = sorted([folder / "config.json", *folder.glob("*.safetensors")])
    return hashlib.sha256("".join(file_digest(file) for file in files).encode()).hexdigest()


def _free_on_disk(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free

"""Datasets on this machine: JSON Lines, JSON, Parquet, or a folder of `save_to_disk`.

A JSON array is read item by item, so that its first rows do not need the whole file. `ijson` does
that too, but it refuses a whole file for one NaN, 1e999 or integer beyond 64 bits, turns half a
surrogate pair into "?" without a word, and does not say which item is broken.

Source: the layout of folders is that of the `datasets` library.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from calltune.errors import DataError
from calltune.files import read_json, read_lines
from calltune.types import Json

BLOCK_BYTES = 1 << 16


class Readable(Protocol):
    """A stream of bytes: an open file, or one on the hub."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; b"" at the end."""
        ...


def read_array(file: Readable) -> Iterator[dict[str, Json]]:
    """The objects in a JSON array, in order, each as soon as it is complete.

    Numbers and strings are those of Python's `json`: NaN, infinities, integers of any size and lone
    surrogates are read, and prep drops their rows by name.

    Raises:
        ValueError: it is not an array of objects, or it ends early; the message names the item.
    """
    decoder = json.JSONDecoder()
    window = _Window(file)
    if window.skip("") != "[":
        raise ValueError("not a JSON array")
    window.at += 1
    number = 0
    while (start := window.skip("," if number else "")) != "]":
        number += 1
        if start != "{":
            raise ValueError(f"item {number}: a JSON object is needed")
        while True:
            try:
                item, window.at = decoder.raw_decode(window.text, window.at)
            except RecursionError:
                raise ValueError(f"item {number}: nested too deeply") from None
            except ValueError as error:
                # Cut off, or wrong: only more of the file tells.
                if not window.more():
                    raise ValueError(f"item {number}: {error}") from None
            else:
                break
        yield item


class _Window:
    """The part of a file that is in memory, and the position in it."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text = ""
        self.at = 0

    def more(self) -> bool:
        """Read more of the file, and drop what is before the position; False at its end."""
        self.text = self.text[self.at :]
        self.at = 0
        # Double the window, so that one long item is not decoded again for every block.
        block = self._file.read(max(BLOCK_BYTES, len(self.text)))
        self.text += self._decoder.decode(block, final=not block)
        return bool(block)

    def skip(self, separators: str) -> str:
        """The next character that is neither white space nor a separator; "" at the end."""
        passed_over = " \t\r\n" + separators
        while True:
            while self.at < len(self.text) and self.text[self.at] in passed_over:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                raise ValueError("the array is not closed; the file seems cut off")


SUFFIXES = (".jsonl", ".json", ".parquet")


def rows(path: Path, split: str) -> Iterator[dict[str, Json]]:
    """The rows of a dataset at `path`, in order. A file has one split, train.

    Raises:
        DataError: the file is missing, of an unknown kind or broken, or does not have this split.
    """
    if path.is_dir():
        yield from _folder_rows(path, split)
        return
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path} ends in {suffix or 'nothing'}; load reads {', '.join(SUFFIXES)} files "
            "and save_to_disk folders"
        )
    if not path.is_file():
        raise DataError(f"No file {path}; check the path")
    if split != "train":
        raise DataError(f"{path} is one file, so its only split is train, not {split}")
    if suffix == ".parquet":
        yield from _whole_parquet_rows(path)
    elif suffix == ".json" and _is_array(path):
        yield from _array_rows(path)
    else:
        # Many datasets name JSON Lines .json.
        yield from (line.row for line in read_lines(path))


def parquet_rows(file: BinaryIO) -> Iterator[dict[str, Json]]:
    """The rows of an open Parquet file; row groups are read one by one, when they are needed."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        for group in range(table.num_row_groups):
            for batch in table.iter_batches(batch_size=256, row_groups=[group]):
                yield from batch.to_pylist()


def _is_array(path: Path) -> bool:
    with path.open("rb") as file:
        while block := file.read(4096):
            if start := block.removeprefix(b"\xef\xbb\xbf").strip():
                return start.startswith(b"[")
    return False


def _array_rows(path: Path) -> Iterator[dict[str, Json]]:
    try:
        with path.open("rb") as file:
            yield from read_array(file)
    except ValueError as error:
        raise DataError(f"{path}, {error}; fix or remove it") from None


def _whole_parquet_rows(path: Path) -> Iterator[dict[str, Json]]:
    import pyarrow as pa

    try:
        with path.open("rb") as file:
            yield from parquet_rows(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a whole Parquet file ({_line(error)}); fetch it again"
        ) from error


def _folder_rows(path: Path, split: str) -> Iterator[dict[str, Json]]:
    state, splits = path / "state.json", path / "dataset_dict.json"
    if splits.is_file():
        names = read_json(splits).get("splits", [])
        if split not in names:
            raise DataError(f"{path} has no split {split}; it has {', '.join(names)}")
        path = path / split
    elif not state.is_file():
        raise DataError(
            f"{path} is a folder that save_to_disk did not write; name one of the files in it"
        )
    yield from _saved_rows(path)


def _saved_rows(path: Path) -> Iterator[dict[str, Json]]:
    import datasets
    import pyarrow as pa

    try:
        yield from datasets.load_from_disk(str(path))
    except (pa.ArrowException, OSError, json.JSONDecodeError, KeyError) as error:
        raise DataError(f"{path} is not a whole dataset ({_line(error)}); save it again") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]

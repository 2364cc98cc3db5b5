"""Rows of a dataset on this machine: JSON Lines, JSON, Parquet, or a `save_to_disk` folder.

A JSON array of objects read item by item, so that the first rows do not need the whole file.
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
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


def items(file: Readable) -> Iterator[dict[str, Json]]:
    """The objects in an array, in order.

    Raises:
        ValueError: it is not an array of objects, or it breaks off; the message names the item.
    """
    decoder = json.JSONDecoder()
    text = _Text(file)
    if text.skip("") != "[":
        raise ValueError("not a JSON array")
    text.at += 1
    number = 0
    while (start := text.skip("," if number else "")) != "]":
        number += 1
        if start != "{":
            raise ValueError(f"item {number}: a JSON object is needed")
        while True:
            try:
                item, text.at = decoder.raw_decode(text.held, text.at)
            except RecursionError:
                raise ValueError(f"item {number}: nested too deeply") from None
            except ValueError as error:
                # Cut off, or wrong: only more of the file tells.
                if not text.more():
                    raise ValueError(f"item {number}: {error}") from None
            else:
                break
        yield item


class _Text:
    """The part of a file that is held, and where in it reading has come to."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.held = ""
        self.at = 0

    def more(self) -> bool:
        """Hold more of the file; False at its end."""
        self.held = self.held[self.at :]
        self.at = 0
        # As much again as is held, so that one long item is not read over and over.
        block = self._file.read(max(BLOCK_BYTES, len(self.held)))
        self.held += self._decoder.decode(block, final=not block)
        return bool(block)

    def skip(self, separators: str) -> str:
        """The next character that is neither white space nor a separator; "" at the end."""
        passed_over = " \t\r\n" + separators
        while True:
            while self.at < len(self.held) and self.held[self.at] in passed_over:
                self.at += 1
            if self.at < len(self.held):
                return self.held[self.at]
            if not self.more():
                raise ValueError("the array is not closed; the file seems cut off")


SUFFIXES = (".jsonl", ".json", ".parquet")


def rows(path: Path, split: str) -> Iterator[dict[str, Json]]:
    """The rows in `path`, in order. A file has one split, called train.

    Raises:
        DataError: the file is missing, of a kind not known, or broken; or has not this split.
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
    """The rows of an open Parquet file; no row group is read before its first row is asked for."""
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
            yield from items(file)
    except ValueError as error:
        raise DataError(f"{path}, {error}; mend or remove it") from None


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

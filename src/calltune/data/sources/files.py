"""Datasets on this machine: JSON Lines, JSON, Parquet, or a folder of `save_to_disk`.

A JSON file holds an array of rows, rows one after the other, or one object that wraps the rows.

Source: the layout of folders is that of the `datasets` library.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from calltune.data.readers.recognise import format_name
from calltune.data.sources.json_stream import Readable, goes_on, read_array, read_objects
from calltune.errors import DataError
from calltune.files import read_json, read_lines
from calltune.types import Json

SUFFIXES = (".jsonl", ".json", ".parquet")


def rows(path: Path, split: str) -> Iterator[dict[str, Json]]:
    """The rows of a dataset at `path`, in order.

    A file has one split, train, unless it is JSON with one list of rows for each split.

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
    wrong_split = DataError(f"{path} is one file, so its only split is train, not {split}")
    if split != "train" and suffix != ".json":
        raise wrong_split
    if suffix == ".parquet":
        yield from _whole_parquet_rows(path)
        return
    found = _json_rows(path)
    first, second = next(found, None), next(found, None)
    wrapped = wrapped_rows(first, split) if first is not None and second is None else None
    if wrapped is None and split != "train":
        raise wrong_split
    if wrapped is None:
        wrapped = [row for row in (first, second) if row is not None]
    yield from chain(wrapped, found)


def wrapped_rows(written: dict[str, Json], split: str) -> list[dict[str, Json]] | None:
    """The rows in an object that wraps them, such as `{"version": 1, "data": [{…}]}`.

    None where the object is a row itself, or has no list of rows of a known dataset format. The
    list that has the name of the split comes before others.

    Raises:
        DataError: there are several lists, and none has the name of the split.
    """
    if split == "train" and format_name(written) != "unknown":
        return None
    if (rows := _listed_rows(written.get(split))) is not None or split != "train":
        return rows
    found = {key: rows for key, items in written.items() if (rows := _listed_rows(items))}
    if len(found) > 1:
        names = ", ".join(found)
        raise DataError(f"The file has several lists of rows: {names}; name one with --split")
    return next(iter(found.values()), None)


def _listed_rows(items: Json) -> list[dict[str, Json]] | None:
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return None
    # The hub's viewer puts each row in an object with its index.
    rows = [item["row"] if isinstance(item.get("row"), dict) else item for item in items]
    return rows if rows and format_name(rows[0]) != "unknown" else None


def parquet_rows(file: BinaryIO) -> Iterator[dict[str, Json]]:
    """The rows of an open Parquet file; row groups are read one by one, when they are needed."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        for group in range(table.num_row_groups):
            for batch in table.iter_batches(batch_size=256, row_groups=[group]):
                yield from batch.to_pylist()


def _json_rows(path: Path) -> Iterator[dict[str, Json]]:
    with path.open("rb") as file:
        first = next((line for line in file if line.removeprefix(BOM_UTF8).strip()), b"")
    if first.removeprefix(BOM_UTF8).lstrip().startswith(b"[") and path.suffix.lower() == ".json":
        return _streamed_rows(path, read_array)
    if goes_on(first):
        return _streamed_rows(path, read_objects)
    # Many datasets name JSON Lines .json.
    return (line.row for line in read_lines(path))


def _streamed_rows(
    path: Path, read: Callable[[Readable], Iterator[dict[str, Json]]]
) -> Iterator[dict[str, Json]]:
    try:
        with path.open("rb") as file:
            yield from read(file)
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

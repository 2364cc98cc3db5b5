"""Rows of a dataset on this machine: JSON Lines, JSON, Parquet, or a `save_to_disk` folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from calltune.calls import Json
from calltune.errors import DataError
from calltune.jsonl import read_json, read_lines
from calltune.sources.arrays import items

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

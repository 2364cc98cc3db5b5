"""Datasets on the Hugging Face hub, through the libraries `datasets` and `huggingface_hub`."""

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from calltune.data.sources import files
from calltune.data.sources.json_stream import goes_on, read_array, read_objects
from calltune.errors import AccessDenied, CalltuneError, DataError, FetchError
from calltune.files import LENIENT_JSON
from calltune.types import Json


def rows(
    dataset: str, split: str, num_examples: int | None, subset: str | None = None
) -> Iterator[dict[str, Json]]:
    """The first `num_examples` rows of a split, or all of them.

    A number of rows is streamed, so that the rest is not downloaded; for all rows whole files go to
    the hub's cache, and a download that fails midway is retried. `subset` names one of the
    dataset's subsets (configurations), where it has several.

    Raises:
        AccessDenied: the dataset is gated, and there is no token with access to it.
        DataError: no such dataset, subset or split, or its files cannot be read.
        FetchError: the hub cannot be reached, or the download failed.
    """
    library = _library()
    try:
        builder = library.load_dataset_builder(dataset, subset)
        by_split = builder.config.data_files or {}
        if by_split and split not in by_split:
            raise DataError(f"{dataset} has no split {split}; it has {', '.join(by_split)}")
        names = [str(name) for name in by_split.get(split, [])]
        if not names or not all(map(_is_plain, names)):
            streaming = num_examples is not None
            found = library.load_dataset(dataset, subset, split=split, streaming=streaming)
        else:
            found = _file_rows(names, is_whole=num_examples is None)
        yield from itertools.islice(found, num_examples)
    except CalltuneError:
        raise
    except Exception as error:
        if (explained := _explained(error, dataset, split)) is None:
            raise
        raise explained from error


def _is_plain(name: str) -> bool:
    """Whether the rows of a file are read here rather than by the library.

    For its first row the library fetches all of a JSON array (xlam is one), 20 MB of JSON Lines
    and 128 MB of Parquet; and it gives every object the keys of all others.
    """
    return name.startswith("hf://") and name.endswith(files.SUFFIXES)


def _file_rows(names: list[str], is_whole: bool) -> Iterator[dict[str, Json]]:
    from huggingface_hub import HfFileSystem, hf_hub_download

    system = HfFileSystem()
    for name in names:
        if is_whole:
            at: Any = system.resolve_path(name)
            fetched = hf_hub_download(
                at.repo_id, at.path_in_repo, repo_type=at.repo_type, revision=at.revision
            )
            yield from files.rows(Path(fetched), "train")
        else:
            # Smaller blocks than the default of 5 MB: often a few rows are all that is wanted.
            with system.open(name, "rb", block_size=1 << 20) as file:
                yield from _streamed(file, name)


def _streamed(file: BinaryIO, name: str) -> Iterator[dict[str, Json]]:
    if name.endswith(".parquet"):
        return files.parquet_rows(file)
    start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    file.seek(0)
    if start.startswith(b"["):
        return read_array(file)
    is_objects = goes_on(file.readline())
    file.seek(0)
    return read_objects(file) if is_objects else _lines(file)


def _lines(file: BinaryIO) -> Iterator[dict[str, Json]]:
    for number, raw in enumerate(file, start=1):
        if line := raw.removeprefix(b"\xef\xbb\xbf").strip():
            try:
                row = LENIENT_JSON.decode(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number}: not JSON, {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {number}: a JSON object is needed")
            yield row


def _library() -> ModuleType:
    # calltune sends nothing anywhere: no telemetry, no count of downloads.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
    import datasets
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    # The library's own 20 tries of 5 s each look like a program that hangs.
    datasets.config.STREAMING_READ_MAX_RETRIES = 5
    datasets.config.STREAMING_READ_RETRY_INTERVAL = 1
    datasets.config.STREAMING_OPEN_MAX_RETRIES = 5
    datasets.config.STREAMING_OPEN_RETRY_INTERVAL = 1
    library: ModuleType = datasets
    return library


def _explained(error: Exception, dataset: str, split: str) -> CalltuneError | None:
    """Our error for what the library raised; None if it is not one that a user can fix."""
    import pyarrow as pa
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub import errors as hub_errors

    chain = _chain(error)
    said = " ".join(str(error).split())
    if any(isinstance(e, hub_errors.GatedRepoError) or "gated dataset" in str(e) for e in chain):
        return AccessDenied(
            f"{dataset} is gated: accept its terms on https://huggingface.co/datasets/{dataset}, "
            "run `hf auth login`, and run again"
        )
    if isinstance(error, DatasetNotFoundError):
        return DataError(
            f"No dataset {dataset} on the hub; check the id, "
            "or run `hf auth login` if it is private"
        )
    several = re.search(r"(?:available configs:|Available:)\s*\[(.*?)\]", said)
    if isinstance(error, ValueError) and several:
        names = several[1].replace("'", "")
        return DataError(f"{dataset} has the subsets {names}; choose one with --subset")
    if isinstance(error, ValueError) and (listed := re.search(r"[Ss]plit.*\[(.*)\]", said)):
        names = listed[1].replace("'", "")
        return DataError(f"{dataset} has no split {split}; it has {names}")
    # The HTTP library under the hub's client differs between versions: take the one it uses.
    http_error = hub_errors.HfHubHTTPError.__bases__[0]
    transport = (ConnectionError, TimeoutError, http_error, hub_errors.HfHubHTTPError)
    broken = next((e for e in chain if isinstance(e, transport)), None)
    if broken is None and "Consistency check failed" in said:
        broken = error
    if broken is not None:
        reason = " ".join(str(broken).split())[:160] or type(broken).__name__
        return FetchError(
            f"{dataset} could not be fetched ({reason}); check the connection and run again"
        )
    if isinstance(error, DatasetsError | ValueError | FileNotFoundError | pa.ArrowException):
        return DataError(f"{dataset} cannot be read ({said[:200]}); check the dataset's page")
    return None


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error and its causes, nearest first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found

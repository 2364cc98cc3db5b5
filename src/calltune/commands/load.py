"""The load command: rows of a dataset -> one JSON Lines file, unchanged.

Rows with a value that JSON cannot hold are left out, and told.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from calltune.data.sources.valid_json import ValueFaults, valid_rows
from calltune.errors import DataError, OptionError
from calltune.files import fsync_path, output_error, write_rows
from calltune.terminal_text import Heartbeat, escape_line
from calltune.types import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """Options of `calltune load`."""

    dataset: str = "Salesforce/xlam-function-calling-60k"
    """A dataset on the hub, a .jsonl, .json or .parquet file, a save_to_disk folder, or
    pip:bfcl-eval."""
    split: str = "train"
    """The split to load. For pip:bfcl-eval: categories joined with +, such as
    simple_python+live_simple; train stands for its eight single-turn Python categories."""
    subset: str | None = None
    """Which subset (configuration) of a dataset on the hub, where it has several."""
    num_examples: int | None = None
    """How many rows, from the top; all of them by default. Of several categories of
    pip:bfcl-eval each gives its share."""
    output_dir: Path = Path("data/training")
    """Folder for the file NAME_SPLIT_Nexamples, where N is the number of rows that were written;
    NAME_SUBSET_SPLIT_Nexamples with a subset."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.num_examples is not None and self.num_examples < 1:
            raise OptionError(f"--num_examples is {self.num_examples}; it must be at least 1")
        if not self.dataset.strip():
            raise OptionError("--dataset is empty; name a hub id, a file, or pip:bfcl-eval")
        if not self.split.strip():
            raise OptionError("--split is empty; the usual one is train")
        if self.subset is not None and (self.dataset.startswith("pip:") or _is_local(self.dataset)):
            raise OptionError(
                f"--subset is {self.subset}, but {self.dataset} is not a dataset on the hub, so it "
                "has no subsets"
            )


def run(options: LoadOptions) -> Path:
    """Write the rows to a file; its path.

    Raises:
        AccessDenied: a gated dataset, and no token with access to it.
        DataError: no such dataset, file or split, or it is empty or broken.
        FetchError: the dataset could not be downloaded completely.
    """
    faults = ValueFaults()
    rows = valid_rows(islice(_rows(options), options.num_examples), faults)
    try:
        with Heartbeat(f"reading {options.dataset}"):
            path, count = _write(options, rows)
    finally:
        _print_faults(faults)
    wanted = options.num_examples
    fewer = f" ({wanted} were asked for; there are no more)" if wanted and count < wanted else ""
    print(f"Wrote {count} rows{fewer} to {path}")
    return path


def _print_faults(faults: ValueFaults) -> None:
    for column, n_rows in faults.emptied.items():
        print(escape_line(f"Wrote null for NaN in column {column}, {n_rows} times"))
    if n_left_out := len(faults.left_out):
        shown = "; ".join(faults.left_out[:5]) + ("; …" if n_left_out > 5 else "")
        told = f"Left out {n_left_out} rows with a value that cannot be kept: {shown}"
        print(escape_line(told))


def _rows(options: LoadOptions) -> Iterator[dict[str, Json]]:
    if options.dataset.startswith("pip:"):
        if options.dataset != "pip:bfcl-eval":
            raise DataError(
                f"No dataset {options.dataset}; the one from a package is pip:bfcl-eval"
            )
        from calltune.data.sources import bfcl

        return bfcl.rows(options.split, options.num_examples)
    if _is_local(options.dataset):
        from calltune.data.sources import files

        return files.rows(Path(options.dataset).expanduser(), options.split)
    from calltune.data.sources import hub

    return hub.rows(options.dataset, options.split, options.num_examples, options.subset)


def _is_local(dataset: str) -> bool:
    if Path(dataset).expanduser().exists():
        return True
    # A hub id is `name` or `owner/name`, and what ends like a file was meant as one.
    is_id = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", dataset, re.ASCII) is not None
    return not is_id or Path(dataset).suffix.lower() in (".jsonl", ".json", ".parquet")


def _write(options: LoadOptions, rows: Iterator[dict[str, Json]]) -> tuple[Path, int]:
    stem = _stem(options)
    # The file's name has the number of rows, which is known only when they are written.
    beside = options.output_dir / f".{stem}.{os.getpid()}.rows"
    try:
        count = write_rows(beside, rows)
        if not count:
            raise DataError(
                f"{options.dataset}, split {options.split}, has no rows; choose another"
            )
        path = options.output_dir / f"{stem}_{count}examples"
        try:
            os.replace(beside, path)
            fsync_path(options.output_dir)
        except OSError as error:
            raise output_error(path, error) from error
    except TypeError as error:
        raise DataError(
            f"{options.dataset} holds a value that JSON does not have ({error}); "
            "calltune needs rows of text and numbers"
        ) from error
    finally:
        beside.unlink(missing_ok=True)
    return path, count


def _stem(options: LoadOptions) -> str:
    last = Path(options.dataset.removeprefix("pip:")).name
    name = last.removesuffix(Path(last).suffix) if _is_local(options.dataset) else last
    parts = [name or "dataset", *([options.subset] if options.subset else []), options.split]
    return re.sub(r"[^\w.+-]", "_", "_".join(parts))

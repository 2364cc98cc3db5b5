"""metrics.jsonl, the record of a training run: one JSON object a line, each with its step."""

import json
from pathlib import Path

from calltune.errors import DataError
from calltune.files import atomic_write, dumps, output_error
from calltune.types import Json


def append_metrics(path: Path, record: dict[str, Json]) -> None:
    """Append a record to a metrics file in one write: a killed run truncates at most the last one.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(dumps(record).encode() + b"\n")
    except OSError as error:
        raise output_error(path, error) from error


def truncate_metrics(metrics_file: Path, step: int) -> int:
    """Remove what was recorded after `step` from a metrics file; the number of lines removed.

    A last line that was truncated is removed too. A missing file is left missing.

    Raises:
        DataError: a complete line is no record of a step.
        OutputError: the file cannot be written.
    """
    if not metrics_file.exists():
        return 0
    lines = metrics_file.read_bytes().splitlines(keepends=True)
    kept = [
        line
        for number, line in enumerate(lines, start=1)
        if line.endswith(b"\n") and _step_of(line, metrics_file, number) <= step
    ]
    if len(kept) < len(lines):
        with atomic_write(metrics_file) as file:
            file.writelines(kept)
    return len(lines) - len(kept)


def _step_of(line: bytes, path: Path, number: int) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path}, line {number}: no record of a step ({line[:60].decode(errors='replace')}); "
            "repair or remove it"
        ) from error

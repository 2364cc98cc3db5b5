"""metrics.jsonl: what a training run measured, one JSON object a line, each with its step."""

import json
from pathlib import Path

from calltune.calls import Json
from calltune.errors import DataError
from calltune.jsonl import dumps, output_error, replacing


def append(path: Path, record: dict[str, Json]) -> None:
    """Add a line in one write, so that a killed run leaves at most the last one cut."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(dumps(record).encode() + b"\n")
    except OSError as error:
        raise output_error(path, error) from error


def drop_after(metrics_file: Path, step: int) -> int:
    """Take what was recorded after `step` out of a metrics file; the number of lines taken out.

    So is a last line that was cut short. Without a file there is nothing to do.

    Raises:
        DataError: a whole line is no record of a step.
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
        with replacing(metrics_file) as file:
            file.writelines(kept)
    return len(lines) - len(kept)


def _step_of(line: bytes, path: Path, number: int) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}, line {number}: no record of a step; mend or remove it") from error

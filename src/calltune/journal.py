"""Records kept one by one while a long run goes on, so that nothing done is done again."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from calltune.calls import Json
from calltune.jsonl import dumps, output_error


class Journal(NamedTuple):
    """A JSON Lines file whose first line says what its records belong to."""

    path: Path
    identity: dict[str, Json]
    """Records of another identity are not taken over, and give way to new ones."""

    def records(self) -> list[dict[str, Json]]:
        """The records that were written whole; none when they are of another identity."""
        return [json.loads(line) for line in self._lines()[1:]]

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file, after its last whole record, for `append`."""
        lines = self._lines() or [_line({"identity": self.identity})]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("r+b" if self.path.exists() else "wb") as file:
                if len(lines) == 1:
                    file.write(lines[0])
                # What a killed run left in the middle of a line.
                file.truncate(sum(map(len, lines)))
                file.seek(0, os.SEEK_END)
                yield file
        except OSError as error:
            raise output_error(self.path, error) from error

    @staticmethod
    def append(file: BinaryIO, record: dict[str, Json]) -> None:
        """Write one record through to the disk."""
        file.write(_line(record))
        file.flush()
        os.fsync(file.fileno())

    def _lines(self) -> list[bytes]:
        """The whole lines up to the first damaged one, the identity first; none without a file."""
        if not self.path.exists():
            return []
        found = self.path.read_bytes().splitlines(True)
        lines = list(takewhile(_is_whole, found))
        return lines if lines[:1] == [_line({"identity": self.identity})] else []


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _line(data: dict[str, Json]) -> bytes:
    return dumps(data).encode() + b"\n"

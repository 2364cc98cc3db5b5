"""Files: JSON Lines and JSON in, whole files or none out.

Records kept one by one while a long run goes on, so that nothing done is done again.
"""

import errno
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from calltune.errors import DataError, OutputError
from calltune.types import Json


class Line(NamedTuple):
    """One line of a JSON Lines file."""

    number: int
    """Counted from 1."""
    row: dict[str, Json]


def read_lines(path: Path) -> Iterator[Line]:
    """The rows of a JSON Lines file with their line numbers; blank lines are passed over.

    Takes a byte order mark and CRLF line ends as they come.

    Raises:
        DataError: the file is missing, not UTF-8, or a line is not a JSON object.
    """
    if not path.is_file():
        raise DataError(f"No file {path}; write it with the stage before, or check the path")
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if raw := raw.removeprefix(b"\xef\xbb\xbf").strip():
                yield Line(number, _parse_line(raw, path, number))


def read_rows(path: Path) -> list[dict[str, Json]]:
    """All rows of a JSON Lines file.

    Raises:
        DataError: as `read_lines`, and when there is no row at all.
    """
    rows = [line.row for line in read_lines(path)]
    if not rows:
        raise DataError(f"{path} has no rows; write it again with the stage before")
    return rows


def read_json(path: Path) -> Json:
    """The JSON document in `path`.

    Raises:
        DataError: the file is missing or not JSON.
    """
    # Unlike Path.is_file, this takes a name that is too long for one of no file.
    if not os.path.isfile(path):
        raise DataError(f"No file {path}; write it with the stage before, or check the path")
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON ({_fault(error)}); delete it and write it again"
        ) from None


def write_rows(path: Path, rows: Iterable[dict[str, Json]]) -> int:
    """Write rows as JSON Lines, whole or not at all; the number of rows written."""
    count = 0
    with replacing(path) as file:
        for row in rows:
            file.write(dumps(row).encode() + b"\n")
            count += 1
    return count


def write_json(path: Path, data: Json) -> None:
    """Write one indented JSON document, whole or not at all."""
    with replacing(path) as file:
        file.write(dumps(data, indent=2).encode() + b"\n")


def dumps(data: Json, indent: int | None = None) -> str:
    """JSON in the spacing and with the letters that calltune writes everywhere, on one line.

    Half a surrogate pair, which a model may write and UTF-8 cannot hold, stays an escape.
    """
    text = json.dumps(data, ensure_ascii=False, indent=indent)
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends well.

    The bytes go to a file beside `path`, are flushed to disk and renamed in, and the folder is
    flushed too. When the block raises, `path` is as it was.

    Raises:
        OutputError: no space, no permission, or the path is a folder.
    """
    if not path.name:
        raise OutputError(f"Cannot write {path} (it is a folder); name a file in it")
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            raw = _Beside(beside, path)
        with io.BufferedWriter(raw) as file:
            yield file
            file.flush()
            with _writing(path):
                os.fsync(file.fileno())
        with _writing(path):
            os.replace(beside, path)
            sync_folder(path.parent)
    finally:
        # Whatever went wrong above is the news, not that there is nothing to clear away.
        with suppress(OSError):
            beside.unlink()


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that becomes `folder` when the block ends well, and is removed when not.

    When another process has made `folder` meanwhile, that one is kept.

    Raises:
        OutputError: the folder cannot be made or renamed in.
    """
    with _writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield beside
        try:
            # Opened for reading, a file is flushed the same way as a folder.
            for file in beside.iterdir():
                sync_folder(file)
            beside.chmod(0o755)
            os.rename(beside, folder)
            sync_folder(folder.parent)
        except OSError as error:
            if not folder.is_dir():
                raise output_error(folder, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def output_error(path: Path, error: OSError) -> OutputError:
    """The one-line error for a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"No space left to write {path}; free some and run again")
    return OutputError(f"Cannot write {path} ({error.strerror}); check the path and permissions")


def _fault(error: ValueError | RecursionError) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


def _parse_line(raw: bytes, path: Path, number: int) -> dict[str, Json]:
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}, line {number}: not JSON ({_fault(error)}); mend or remove it"
        ) from None
    if not isinstance(row, dict):
        raise DataError(
            f"{path}, line {number}: a JSON object is needed, not {type(row).__name__}; "
            "mend or remove it"
        )
    return row


class _Beside(io.FileIO):
    """The file that takes the place of `path`; only its own failed writes become OutputError."""

    def __init__(self, beside: Path, path: Path) -> None:
        super().__init__(beside, "wb")
        self._path = path

    def write(self, data: Any) -> int:
        with _writing(self._path):
            return super().write(data)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error


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

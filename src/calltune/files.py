"""Reading JSON and JSON Lines, writing files atomically, and append-only logs of records."""

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
from typing import Any, BinaryIO, NamedTuple, Self

from calltune.errors import DataError, OutputError
from calltune.types import Json

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class NotKept(float):
    """A value that cannot be kept as it was written, in its place: NaN, so that nothing uses it.

    Its `repr` is what was written.
    """

    reason: str
    """Why it cannot be kept, in a short phrase."""
    _written: str

    def __new__(cls, reason: str, written: str) -> Self:
        """NaN with a reason and what was written."""
        self = super().__new__(cls, "nan")
        self.reason = reason
        self._written = written
        return self

    def __repr__(self) -> str:
        return self._written


def _whole_number(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return NotKept("number of too many digits", digits)


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # Which of the values is meant, nobody knows; only equal ones do no harm.
        for key, value in pairs:
            if found[key] != value:
                written = [shown for name, shown in pairs if name == key]
                return found | {key: NotKept("a key twice in one object", f"{key}: {written}")}
    return found


LENIENT_JSON = json.JSONDecoder(parse_int=_whole_number, object_pairs_hook=_object)
"""Python's decoder, for rows: what cannot be kept costs its row, and not the file."""


class Line(NamedTuple):
    """One line of a JSON Lines file."""

    number: int
    """Counted from 1."""
    row: dict[str, Json]


def read_lines(path: Path) -> Iterator[Line]:
    """The objects in a JSON Lines file with their line numbers; blank lines are skipped.

    A byte order mark and CRLF line ends are accepted.

    Raises:
        DataError: the file is missing or not UTF-8, or a line is not a JSON object.
    """
    if not path.is_file():
        raise _missing(path)
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if raw := raw.removeprefix(_BYTE_ORDER_MARK).strip():
                yield Line(number, _parse_line(raw, path, number))


def read_rows(path: Path) -> list[dict[str, Json]]:
    """All objects in a JSON Lines file.

    Raises:
        DataError: as `read_lines`, and when the file has no objects.
    """
    rows = [line.row for line in read_lines(path)]
    if not rows:
        raise DataError(f"{path} has no rows; write it again with the command before")
    return rows


def read_json(path: Path) -> Json:
    """The JSON document in a file.

    Raises:
        DataError: the file is missing or not JSON.
    """
    # Unlike Path.is_file, this returns False for a name that is too long for a file.
    if not os.path.isfile(path):
        raise _missing(path)
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON ({_reason(error)}); delete it and write it again"
        ) from None


def write_rows(path: Path, rows: Iterable[dict[str, Json]]) -> int:
    """Write objects as JSON Lines, atomically; the number of objects.

    Raises:
        OutputError: as `atomic_write`.
    """
    count = 0
    with atomic_write(path) as file:
        for row in rows:
            file.write(_line(row))
            count += 1
    return count


def write_json(path: Path, data: Json) -> None:
    """Write one JSON document, indented, atomically.

    Raises:
        OutputError: as `atomic_write`.
    """
    with atomic_write(path) as file:
        file.write(dumps(data, indent=2).encode() + b"\n")


def dumps(data: Json, indent: int | None = None) -> str:
    """JSON text as calltune writes it everywhere: on one line unless indented, and not ASCII only.

    A lone surrogate, which a model may write and UTF-8 cannot encode, is written as an escape.
    """
    text = json.dumps(data, ensure_ascii=False, indent=indent)
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which replaces `path` when the block ends without an exception.

    The bytes go to a temporary file in the same folder, which is created if it is missing. They are
    flushed to disk, then the file is renamed and the folder is flushed. After an exception `path`
    is as it was.

    Raises:
        OutputError: there is no space or no permission, or the path is a folder.
    """
    if not path.name:
        raise OutputError(f"Cannot write {path} (it is a folder); name a file in it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            raw = _TemporaryFile(temporary, path)
        with io.BufferedWriter(raw) as file:
            yield file
            file.flush()
            with _output_errors(path):
                os.fsync(file.fileno())
        with _output_errors(path):
            os.replace(temporary, path)
            fsync_path(path.parent)
    finally:
        # A failure to clean up must not hide the exception that is on its way.
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `folder` when the block ends without an exception.

    After an exception it is removed. If another process has created `folder` in the meantime, that
    one is kept.

    Raises:
        OutputError: the folder cannot be created or renamed.
    """
    with _output_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary
        try:
            for file in temporary.iterdir():
                fsync_path(file)
            temporary.chmod(0o755)
            os.rename(temporary, folder)
            fsync_path(folder.parent)
        except OSError as error:
            if not folder.is_dir():
                raise output_error(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class RecordLog(NamedTuple):
    """An append-only log of records: JSON Lines, of which the first identifies what they belong to.

    It lets a run that was killed resume: records that were written completely are read back, and a
    line that was cut off is overwritten.
    """

    path: Path
    identity: dict[str, Json]
    """Records under another identity are ignored, and overwritten by new ones."""

    def records(self) -> list[dict[str, Json]]:
        """The complete records in the file; none if it has another identity."""
        return [json.loads(line) for line in self._lines()[1:]]

    def other_identity(self) -> dict[str, Json] | None:
        """The identity of records in the file that `open` will remove; None where there are none.

        Those have another identity than this log's.
        """
        if not self.path.exists() or self._lines():
            return None
        with self.path.open("rb") as file:
            first, second = file.readline(), file.readline()
        if not (_is_complete(first) and second):
            return None
        identity = json.loads(first).get("identity")
        return identity if isinstance(identity, dict) else None

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file, opened after its last complete record, for `append`.

        Raises:
            OutputError: it cannot be written.
        """
        lines = self._lines() or [_line({"identity": self.identity})]
        with _output_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("r+b" if self.path.exists() else "wb") as file:
                if len(lines) == 1:
                    file.write(lines[0])
                # Drops what a killed run left of its last line.
                file.truncate(sum(map(len, lines)))
                file.seek(0, os.SEEK_END)
                yield file

    @staticmethod
    def append(file: BinaryIO, record: dict[str, Json]) -> None:
        """Write one record and flush it to disk."""
        file.write(_line(record))
        file.flush()
        os.fsync(file.fileno())

    def _lines(self) -> list[bytes]:
        """The identity and the lines up to the first damaged one; none of another identity."""
        if not self.path.exists():
            return []
        found = self.path.read_bytes().splitlines(True)
        lines = list(takewhile(_is_complete, found))
        return lines if lines[:1] == [_line({"identity": self.identity})] else []


def fsync_path(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk, so that it survives a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def output_error(path: Path, error: OSError) -> OutputError:
    """The one-line error for a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"No space left to write {path}; free some and run again")
    return OutputError(f"Cannot write {path} ({error.strerror}); check the path and permissions")


class _TemporaryFile(io.FileIO):
    """The file behind `atomic_write`: its failed writes, and no others, become an OutputError."""

    def __init__(self, temporary: Path, path: Path) -> None:
        super().__init__(temporary, "wb")
        self._path = path

    def write(self, data: Any) -> int:
        with _output_errors(self._path):
            return super().write(data)


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error


def _missing(path: Path) -> DataError:
    return DataError(f"No file {path}; write it with the command before, or check the path")


def _parse_line(raw: bytes, path: Path, number: int) -> dict[str, Json]:
    try:
        row = LENIENT_JSON.decode(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}, line {number}: not JSON ({_reason(error)}); fix or remove it"
        ) from None
    if not isinstance(row, dict):
        raise DataError(
            f"{path}, line {number}: a JSON object is needed, not {type(row).__name__}; "
            "fix or remove it"
        )
    return row


def _reason(error: ValueError | RecursionError) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


def _is_complete(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _line(data: dict[str, Json]) -> bytes:
    return dumps(data).encode() + b"\n"

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from calltune.errors import DataError, OutputError
from calltune.files import (
    Line,
    NotKept,
    atomic_folder,
    atomic_write,
    dumps,
    file_digest,
    read_json,
    read_lines,
    read_rows,
    write_json,
    write_rows,
)
from calltune.types import Json

OLD = b"old\n"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file that is there before anything is written."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(OLD)
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run_python(source: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", source, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows: list[dict[str, Json]] = [
        {"text": "zwei\nZeilen, ein é und ein 🙂"},
        {"n": [1, 2.5, None, True]},
    ]
    path = tmp_path / "new" / "folder" / "rows.jsonl"
    assert write_rows(path, rows) == 2
    assert read_rows(path) == rows
    assert path.read_bytes().count(b"\n") == 2


def test_letters_are_written_as_themselves() -> None:
    assert dumps({"ä": "🙂"}) == '{"ä": "🙂"}'


def test_half_a_surrogate_pair_can_be_written_and_read_back(tmp_path: Path) -> None:
    # A model may write the escape; UTF-8 has no bytes for it, and the results were lost.
    broken = {"text": 'a \ud83d "quoted" \\ end', "good": "🙂"}
    write_rows(tmp_path / "rows.jsonl", [broken])
    write_json(tmp_path / "one.json", broken)
    assert read_rows(tmp_path / "rows.jsonl") == [broken]
    assert read_json(tmp_path / "one.json") == broken


def test_byte_order_mark_windows_line_ends_and_blank_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": 2}')
    assert list(read_lines(path)) == [Line(1, {"a": 1}), Line(4, {"a": 2})]


@pytest.mark.parametrize(
    "bad",
    [
        b"{'a': 1}",
        b'{"a": 1',
        b'{"a": "\xff"}',
        b"[1]",
        b"3",
        b"[" * 100_000,
    ],
    ids=["python", "cut", "latin", "list", "number", "deep"],
)
def test_a_bad_line_is_told_with_its_file_and_number(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + bad + b"\n")
    with pytest.raises(DataError, match=r"rows\.jsonl, line 3: ") as caught:
        read_rows(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


def test_a_number_of_too_many_digits_costs_no_more_than_its_own_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    digits = "9" * 5000
    path.write_text(f'{{"a": {digits}}}\n{{"a": 1}}\n')
    large, one = (line.row["a"] for line in read_lines(path))
    assert isinstance(large, NotKept) and repr(large) == digits
    assert one == 1


def test_a_key_twice_in_one_object_is_no_value(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1, "a": 2}\n{"a": 1, "a": 1}\n')
    twice, same = (line.row["a"] for line in read_lines(path))
    assert repr(twice) == "a: [1, 2]" and same == 1


def test_lines_before_a_bad_one_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\nbad\n')
    assert next(read_lines(path)).row == {"a": 1}


@pytest.mark.parametrize("read", [read_rows, read_json])
def test_a_missing_file_and_a_folder_are_told_by_path(tmp_path: Path, read: object) -> None:
    assert callable(read)
    for path in (tmp_path / "gone.json", tmp_path):
        with pytest.raises(DataError, match=f"No file {path}"):
            read(path)


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"rows\.jsonl has no rows"):
        read_rows(path)


@pytest.mark.parametrize("bad", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_document_that_is_not_json_is_refused(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "one.json"
    path.write_bytes(bad)
    with pytest.raises(DataError, match=r"one\.json is not JSON"):
        read_json(path)


def test_a_document_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}


def test_the_digest_is_that_of_the_bytes(old: Path) -> None:
    # As `printf 'old\n' | sha256sum` gives it.
    digest = "01d09d19c2139a46aebfb577780d123d7396e97201bc7ead210a2ebff8239dee"
    assert file_digest(old) == digest


def test_the_old_file_stays_until_the_new_one_is_whole(old: Path) -> None:
    with atomic_write(old) as file:
        file.write(b"new\n")
        file.flush()
        assert old.read_bytes() == OLD
    assert old.read_bytes() == b"new\n"
    assert names_in(old.parent) == [old.name]


def test_a_failure_in_the_middle_leaves_the_old_file_and_nothing_else(old: Path) -> None:
    with pytest.raises(KeyError), atomic_write(old) as file:
        file.write(b"half")
        raise KeyError("row")
    assert old.read_bytes() == OLD
    assert names_in(old.parent) == [old.name]


def test_an_error_of_another_file_is_not_taken_for_a_failed_write(old: Path) -> None:
    # A missing input or a broken connection was once told as "Cannot write".
    for error in (FileNotFoundError("input"), ConnectionResetError("peer")):
        with pytest.raises(type(error)) as caught, atomic_write(old) as file:
            file.write(b"half")
            raise error
        assert caught.value is error
    assert old.read_bytes() == OLD


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_found_full_at_the_end_is_told_and_leaves_the_old_file(
    old: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OutputError, match=r"No space left to write .*rows\.jsonl; free some"):
        write_rows(old, [{"a": 1}])
    monkeypatch.undo()
    assert old.read_bytes() == OLD
    assert names_in(old.parent) == [old.name]


@pytest.mark.parametrize("size", [10, 5_000_000])
def test_a_write_that_the_system_refuses_leaves_the_old_file(old: Path, size: int) -> None:
    # A limit on file sizes stands for the full disk: the write itself fails, small or large.
    source = """
import resource, sys
from pathlib import Path
from calltune.errors import OutputError
from calltune.files import write_rows
resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))
try:
    write_rows(Path(sys.argv[1]), [{"a": "x" * int(sys.argv[2])}])
except OutputError as error:
    print(error)
"""
    result = run_python(source, old, str(size))
    assert result.stdout.startswith(f"Cannot write {old} (File too large)")
    assert result.stderr == ""
    assert old.read_bytes() == OLD
    assert names_in(old.parent) == [old.name]


def test_a_kill_in_the_middle_leaves_the_old_file(old: Path) -> None:
    source = """
import os, signal, sys
from pathlib import Path
from calltune.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_python(source, old).returncode == -signal.SIGKILL
    assert old.read_bytes() == OLD
    write_json(old, {"a": 1})
    assert json.loads(old.read_bytes()) == {"a": 1}


def test_a_path_below_a_file_is_told(old: Path) -> None:
    # The clean-up failed here as well, and its error hid this one.
    with pytest.raises(OutputError, match=r"Cannot write .*below\.json"):
        write_json(old / "below.json", {})
    assert old.read_bytes() == OLD


@pytest.mark.parametrize("folder", [".", "..", ""])
def test_a_folder_in_place_of_a_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(OutputError, match="Cannot write"):
        write_json(Path(folder), {})
    assert names_in(tmp_path) == ["here"]


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    with pytest.raises(ZeroDivisionError), atomic_folder(folder) as beside:
        (beside / "a").write_text("half")
        raise ZeroDivisionError
    assert list(folder.parent.iterdir()) == []
    with atomic_folder(folder) as beside:
        (beside / "a").write_text("whole")
        assert not folder.exists()
    assert (folder / "a").read_text() == "whole"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_that_another_process_made_meanwhile_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with atomic_folder(folder) as beside:
        (beside / "a").write_text("second")
        folder.mkdir()
        (folder / "a").write_text("first")
    assert (folder / "a").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_new_folder_where_a_file_stands_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="Cannot write"),
        atomic_folder(tmp_path / "file" / "model"),
    ):
        pass

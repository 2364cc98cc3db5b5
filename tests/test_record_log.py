from pathlib import Path

import pytest

from calltune.files import RecordLog


def write(log: RecordLog, *numbers: int) -> None:
    with log.open() as file:
        for number in numbers:
            log.append(file, {"n": number})


def test_records_are_kept_and_added_to(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "deep" / "j.jsonl", {"model": "a"})
    assert log.records() == []
    write(log, 1, 2)
    write(log, 3)
    assert log.records() == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_a_line_that_was_cut_off_is_dropped_and_written_over(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "j.jsonl", {"model": "a"})
    write(log, 1, 2)
    whole = log.path.read_bytes()
    for cut in range(len(whole)):
        log.path.write_bytes(whole[:cut])
        kept = log.records()
        assert kept == [{"n": 1}, {"n": 2}][: len(kept)]
        write(log, 7)
        assert log.records() == [*kept, {"n": 7}]


def test_records_of_another_identity_give_way(tmp_path: Path) -> None:
    write(RecordLog(tmp_path / "j.jsonl", {"model": "a much longer name"}), 1, 2, 3)
    other = RecordLog(tmp_path / "j.jsonl", {"model": "b"})
    assert other.records() == []
    write(other, 9)
    assert other.records() == [{"n": 9}]
    assert other.path.read_bytes().count(b"\n") == 2


def test_what_gives_way_is_known_before(tmp_path: Path) -> None:
    first, other = (RecordLog(tmp_path / "j.jsonl", {"model": name}) for name in "ab")
    assert first.other_identity() is None
    write(first)
    assert other.other_identity() is None  # There are no records to lose.
    write(first, 1)
    assert first.other_identity() is None and other.other_identity() == {"model": "a"}
    for broken in (b"", b"[]\n[]\n", b"{}\n{}\n", b'{"identity": 3}\n{}\n', b"[" * 9999 + b"\n1"):
        first.path.write_bytes(broken)
        assert other.other_identity() is None


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe\n", b'{"n": 2\n', b"[2]\n", b"\n", b"[" * 10_000 + b"\n", b"9" * 5000 + b"\n"],
)
def test_records_from_a_damaged_line_on_are_made_again(tmp_path: Path, line: bytes) -> None:
    log = RecordLog(tmp_path / "j.jsonl", {"model": "a"})
    write(log, 1)
    with log.path.open("ab") as file:
        file.write(line + b'{"n": 3}\n')
    assert log.records() == [{"n": 1}]
    write(log, 2)
    assert log.records() == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("change", [{"model": "b"}, {"format": "chatml"}, {"version": "0.2"}])
def test_records_of_another_format_or_version_give_way(
    tmp_path: Path, change: dict[str, str]
) -> None:
    identity = {"model": "a", "format": "gemma", "version": "0.1"}
    write(RecordLog(tmp_path / "j.jsonl", identity), 1)
    assert RecordLog(tmp_path / "j.jsonl", identity | change).records() == []

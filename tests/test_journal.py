from pathlib import Path

import pytest

from calltune.files import Journal


def write(journal: Journal, *numbers: int) -> None:
    with journal.open() as file:
        for number in numbers:
            journal.append(file, {"n": number})


def test_records_are_kept_and_added_to(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "deep" / "j.jsonl", {"model": "a"})
    assert journal.records() == []
    write(journal, 1, 2)
    write(journal, 3)
    assert journal.records() == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_a_line_that_was_cut_off_is_dropped_and_written_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl", {"model": "a"})
    write(journal, 1, 2)
    whole = journal.path.read_bytes()
    for cut in range(len(whole)):
        journal.path.write_bytes(whole[:cut])
        kept = journal.records()
        assert kept == [{"n": 1}, {"n": 2}][: len(kept)]
        write(journal, 7)
        assert journal.records() == [*kept, {"n": 7}]


def test_records_of_another_identity_give_way(tmp_path: Path) -> None:
    write(Journal(tmp_path / "j.jsonl", {"model": "a much longer name"}), 1, 2, 3)
    other = Journal(tmp_path / "j.jsonl", {"model": "b"})
    assert other.records() == []
    write(other, 9)
    assert other.records() == [{"n": 9}]
    assert other.path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe\n", b'{"n": 2\n', b"[2]\n", b"\n", b"[" * 10_000 + b"\n", b"9" * 5000 + b"\n"],
)
def test_records_from_a_damaged_line_on_are_made_again(tmp_path: Path, line: bytes) -> None:
    journal = Journal(tmp_path / "j.jsonl", {"model": "a"})
    write(journal, 1)
    with journal.path.open("ab") as file:
        file.write(line + b'{"n": 3}\n')
    assert journal.records() == [{"n": 1}]
    write(journal, 2)
    assert journal.records() == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("change", [{"model": "b"}, {"format": "chatml"}, {"version": "0.2"}])
def test_records_of_another_format_or_version_give_way(
    tmp_path: Path, change: dict[str, str]
) -> None:
    identity = {"model": "a", "format": "gemma", "version": "0.1"}
    write(Journal(tmp_path / "j.jsonl", identity), 1)
    assert Journal(tmp_path / "j.jsonl", identity | change).records() == []

from pathlib import Path

import pytest

from calltune.errors import DataError
from calltune.training.logging import truncate_metrics

RECORDS = b'{"step": 0, "val_loss": 2.0}\n{"step": 10, "train_loss": 1.0}\n{"step": 20}\n'


def test_what_came_after_a_step_is_taken_out(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(RECORDS)
    assert truncate_metrics(file, 10) == 1
    assert file.read_bytes() == RECORDS[: RECORDS.index(b'{"step": 20}')]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("cut", [b"", b'{"step": 3', b'{"step": 3}'])
def test_a_last_line_that_was_cut_is_taken_out(cut: bytes, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(RECORDS + cut)
    assert truncate_metrics(file, 20) == bool(cut)
    assert file.read_bytes() == RECORDS


def test_a_whole_line_that_is_no_record_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    for line in (b"{\n", b"7\n", b'{"loss": 1}\n', b'{"step": null}\n'):
        file.write_bytes(RECORDS + line + RECORDS)
        with pytest.raises(DataError, match=r"line 4: no record of a step"):
            truncate_metrics(file, 5)
        assert file.read_bytes() == RECORDS + line + RECORDS


def test_without_a_file_there_is_nothing_to_take_out(tmp_path: Path) -> None:
    assert truncate_metrics(tmp_path / "metrics.jsonl", 10) == 0
    assert list(tmp_path.iterdir()) == []

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calltune.commands.load import LoadOptions, run
from calltune.errors import DataError, OptionError, OutputError
from calltune.types import Json

ROWS: list[dict[str, Json]] = [
    {"query": f"größe {n}", "tools": "[]", "answers": "[]"} for n in range(5)
]


def load(path: Path, out: Path, split: str = "train", num_examples: int | None = None) -> Path:
    return run(
        LoadOptions(dataset=str(path), split=split, num_examples=num_examples, output_dir=out)
    )


def rows_in(path: Path) -> list[dict[str, Json]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def lines(*rows: Json) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_rows_of_a_file_are_written_as_they_came(tmp_path: Path) -> None:
    source = tmp_path / "calls.jsonl"
    source.write_bytes(lines(*ROWS))
    path = load(source, tmp_path / "out")
    assert path == tmp_path / "out" / "calls_train_5examples"
    assert rows_in(path) == ROWS


def test_of_several_lists_of_rows_none_is_left_out_in_silence(tmp_path: Path) -> None:
    source = tmp_path / "calls.json"
    source.write_text(json.dumps({"positives": ROWS[:1], "negatives": ROWS[1:]}))
    with pytest.raises(DataError, match="positives, negatives; name one with --split"):
        load(source, tmp_path / "out")
    assert rows_in(load(source, tmp_path / "out", split="negatives")) == ROWS[1:]


def test_the_name_tells_the_rows_that_were_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "calls.jsonl"
    source.write_bytes(lines(*ROWS))
    assert load(source, tmp_path, num_examples=3).name == "calls_train_3examples"
    assert load(source, tmp_path, num_examples=9).name == "calls_train_5examples"
    assert "9 were asked for" in capsys.readouterr().out


def test_a_byte_order_mark_and_crlf_are_taken_as_they_come(tmp_path: Path) -> None:
    source = tmp_path / "calls.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + lines(*ROWS).replace(b"\n", b"\r\n"))
    assert rows_in(load(source, tmp_path)) == ROWS


@pytest.mark.parametrize("content", [json.dumps(ROWS, indent=2).encode(), lines(*ROWS)])
def test_a_json_file_holds_an_array_or_lines(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "calls.json"
    source.write_bytes(content)
    assert rows_in(load(source, tmp_path, num_examples=4)) == ROWS[:4]


def test_a_parquet_file_is_read(tmp_path: Path) -> None:
    source = tmp_path / "calls.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), source, row_group_size=2)
    assert rows_in(load(source, tmp_path)) == ROWS


def test_a_saved_dataset_is_read_by_split(tmp_path: Path) -> None:
    import datasets

    saved = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"dev": saved}).save_to_disk(str(tmp_path / "both"))
    saved.save_to_disk(str(tmp_path / "one"))
    assert rows_in(load(tmp_path / "both", tmp_path, split="dev")) == ROWS
    assert rows_in(load(tmp_path / "one", tmp_path)) == ROWS
    with pytest.raises(DataError, match="no split train; it has dev"):
        load(tmp_path / "both", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "has no rows"),
        ("a.jsonl", b'{"a": 1}\nnope\n', "line 2: not JSON"),
        ("a.jsonl", b"[1]\n", "line 1: a JSON object is needed"),
        ("a.json", b"[]", "has no rows"),
        ("a.json", b'[{"a": 1}, 2]', "item 2: a JSON object is needed"),
        ("a.json", b'[{"a": 1}, {"a": ', "item 2"),
        ("a.parquet", b"PAR1 cut off", "not a whole Parquet file"),
        ("a.csv", b"a,b", "ends in .csv"),
        ("a", b"{}", "ends in nothing"),
    ],
)
def test_a_broken_file_gives_one_line_and_no_output(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    source = tmp_path / name
    source.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load(source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_earlier_output_survives_a_failed_load(tmp_path: Path) -> None:
    source = tmp_path / "calls.jsonl"
    source.write_bytes(lines(*ROWS))
    path = load(source, tmp_path / "out")
    source.write_bytes(lines(*ROWS) + b"nope")
    with pytest.raises(DataError):
        load(source, tmp_path / "out")
    assert rows_in(path) == ROWS
    assert list((tmp_path / "out").iterdir()) == [path]


def test_a_value_that_json_does_not_have_is_a_data_error(tmp_path: Path) -> None:
    source = tmp_path / "bytes.parquet"
    pq.write_table(pa.table({"image": [b"\x00"]}), source)
    with pytest.raises(DataError, match="JSON does not have"):
        load(source, tmp_path / "out")


def test_what_is_written_is_valid_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "numbers.jsonl"
    digits = "9" * 5000
    source.write_text(
        f'{{"id": "a", "score": NaN, "x": 1}}\n{{"id": "b", "x": {{"y": [NaN]}}}}\n'
        f'{{"id": "c", "x": 1e999}}\n{{"id": "d", "x": -{digits}}}\n{{"id": "e", "x": "NaN"}}\n'
    )
    written = load(source, tmp_path / "out")
    kept = [{"id": "a", "score": None, "x": 1}, {"id": "e", "x": "NaN"}]
    lines_written = written.read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail) for line in lines_written] == kept
    printed = capsys.readouterr().out
    assert "Wrote null for NaN in column score, 1 times" in printed
    assert "Left out 3 rows with a value that cannot be kept: row 2 (b): nan" in printed
    assert "row 4 (d): -9999" in printed


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(ROWS[0], indent=2)),
        ("a.jsonl", json.dumps(ROWS[0], indent=2)),
        ("a.json", "\n".join(json.dumps(row, indent=2) for row in ROWS)),
        ("a.jsonl", ",\n".join(json.dumps(row) for row in ROWS)),
        ("a.json", "".join(json.dumps(row) for row in ROWS)),
        ("a.json", json.dumps({"version": 1, "rows": ROWS})),
        ("a.json", json.dumps({"test": ROWS[:1], "train": ROWS}, indent=1)),
        ("a.json", json.dumps({"rows": [{"row_idx": 0, "row": ROWS[0]}]})),
    ],
    ids=["one", "lines", "objects", "commas", "one line", "wrapped", "splits", "viewer"],
)
def test_json_is_read_however_it_is_laid_out(tmp_path: Path, name: str, content: str) -> None:
    source = tmp_path / name
    source.write_text(content)
    found = rows_in(load(source, tmp_path / "out"))
    assert found in (ROWS, ROWS[:1])
    assert len(found) == (5 if content.count('"query"') >= 5 else 1)


def test_a_json_file_may_hold_its_splits(tmp_path: Path) -> None:
    source = tmp_path / "a.json"
    source.write_text(json.dumps({"train": ROWS, "test": ROWS[:1]}))
    assert rows_in(load(source, tmp_path / "out", split="test")) == ROWS[:1]
    with pytest.raises(DataError, match="only split is train, not dev"):
        load(source, tmp_path / "out", split="dev")


def test_only_datasets_on_the_hub_have_subsets(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--subset is a"):
        LoadOptions(dataset=str(tmp_path), subset="a")


@pytest.mark.parametrize("name", ["missing.jsonl", "./missing", "folder/deep/id"])
def test_a_missing_file_is_not_looked_for_on_the_hub(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        load(tmp_path / name, tmp_path)
    with pytest.raises(DataError):
        run(LoadOptions(dataset=name, output_dir=tmp_path))


def test_a_file_has_only_the_split_train(tmp_path: Path) -> None:
    source = tmp_path / "calls.jsonl"
    source.write_bytes(lines(*ROWS))
    with pytest.raises(DataError, match="only split is train, not test"):
        load(source, tmp_path, split="test")


def test_a_folder_in_the_way_of_the_output_is_an_output_error(tmp_path: Path) -> None:
    source = tmp_path / "calls.jsonl"
    source.write_bytes(lines(*ROWS))
    (tmp_path / "out" / "calls_train_5examples").mkdir(parents=True)
    with pytest.raises(OutputError):
        load(source, tmp_path / "out")


@pytest.mark.parametrize("bad", [{"num_examples": 0}, {"dataset": " "}, {"split": ""}])
def test_impossible_options_are_refused(bad: dict[str, Json]) -> None:
    with pytest.raises(OptionError):
        LoadOptions(**bad)


def test_a_package_that_is_not_offered_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pip:bfcl-eval"):
        run(LoadOptions(dataset="pip:other", output_dir=tmp_path))

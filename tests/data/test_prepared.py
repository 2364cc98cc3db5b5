"""Prepared rows: written and read back, from older versions too."""

import json
from pathlib import Path
from typing import Any

import pytest

from calltune.commands.prep import PrepOptions, run
from calltune.data.prepared import VERSION, PreparedRow, prepare_example, read_prepared
from calltune.data.splits import SPLIT_NAMES
from calltune.errors import DataError
from calltune.formats import FORMATS
from calltune.types import AcceptableArgument, Answer, Example, Message, Tool

OLD = Path(__file__).parent.parent / "support" / "old" / "prepared"
"""dataset.jsonl, and what the version before prep.json had a version made of it."""
TOOL = {"name": "area", "description": "", "parameters": {"type": "object"}}
EXAMPLE = Example(
    "a",
    (Message("user", "How large?"),),
    (Tool("area", "", {"type": "object", "properties": {}, "required": []}, TOOL),),
    (Answer("area", {"unit": AcceptableArgument(("m", "metre"), is_optional=True)}),),
    "xlam",
)
BARE: dict[str, Any] = {"id": "a", "text": "ab", "completion_start": 1, "format": "gemma"}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("prompt_format", FORMATS)
@pytest.mark.parametrize("augmentation", [None, "masked"])
def test_a_row_comes_back_as_it_was_written(
    tmp_path: Path, prompt_format: str, augmentation: str | None
) -> None:
    row = prepare_example(EXAMPLE, FORMATS[prompt_format], True, augmentation)
    assert row.prompt + row.completion == row.text
    assert read_prepared(write(tmp_path / "test.jsonl", row.to_json())) == [row]


def test_a_row_for_training_needs_only_its_text(tmp_path: Path) -> None:
    (row,) = read_prepared(write(tmp_path / "train.jsonl", BARE))
    assert row == PreparedRow("a", "ab", 1, "gemma")
    assert row.answers is None and row.tools == ()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("query", 1), ("tools", {}), ("answers", [1]), ("answers", [{}]), ("answers", 5)),
        *(("source", []), ("made", 1), ("unseen_tools", "1"), ("answers", {"name": "f"})),
    ],
)
def test_a_key_of_the_wrong_kind_is_named(tmp_path: Path, key: str, value: Any) -> None:
    path = write(tmp_path / "test.jsonl", BARE, BARE | {key: value})
    with pytest.raises(DataError, match=f"test.jsonl, line 2: {key} is not what prep writes"):
        read_prepared(path)


def test_rows_of_a_later_version_are_refused_and_older_ones_read(tmp_path: Path) -> None:
    path = write(tmp_path / "test.jsonl", BARE)
    report = tmp_path / "prep.json"
    for written in ({}, {"version": VERSION}):
        report.write_text(json.dumps(written))
        assert len(read_prepared(path)) == 1
    report.write_text(json.dumps({"version": VERSION + 1}))
    with pytest.raises(DataError, match="update calltune or run prep again"):
        read_prepared(path)


@pytest.mark.parametrize("prompt_format", FORMATS)
@pytest.mark.parametrize("split", SPLIT_NAMES)
def test_rows_of_the_version_before_are_read_in_full(prompt_format: str, split: str) -> None:
    path = OLD / prompt_format / f"{split}.jsonl"
    written = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [row.to_json() for row in read_prepared(path)] == written


@pytest.mark.parametrize("prompt_format", FORMATS)
def test_the_same_dataset_gives_the_same_bytes_as_the_version_before(
    tmp_path: Path, prompt_format: str
) -> None:
    options = PrepOptions(
        input_file=OLD / "dataset.jsonl",
        output_dir=tmp_path,
        format=prompt_format,
        train_ratio=0.6,
        val_ratio=0.2,
        test_ratio=0.2,
        negatives=0.5,
        mask_names=0.5,
    )
    folder = run(options)
    for split in SPLIT_NAMES:
        name = f"{split}.jsonl"
        assert (folder / name).read_bytes() == (OLD / prompt_format / name).read_bytes()
    before = json.loads((OLD / prompt_format / "prep.json").read_text())
    after = json.loads((folder / "prep.json").read_text())
    # What reports have since then.
    assert after.pop("answers_break_schema")["count"] == 0
    assert sum(counts["rows"] for counts in after.pop("by_format").values()) == 13
    for reason, drop in after["dropped"].items():
        assert (reason, drop.pop("values")) == ("tools are not JSON", ["no"])
    assert after == {"version": VERSION} | before | {"input": str(options.input_file)}

import json
from pathlib import Path
from typing import Any

import pytest

from calltune.commands.overlap import OverlapOptions, run
from calltune.data.sources import bfcl
from calltune.errors import DataError


def line(row_id: str, query: str, *tools: str) -> dict[str, Any]:
    return {
        "text": "prompt completion",
        "completion_start": 7,
        "format": "gemma",
        "id": row_id,
        "query": query,
        "tools": [{"name": name} for name in tools],
        "answers": [],
        "source": "mine",
    }


def write(path: Path, *lines: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))


def question(row_id: str, query: str, *tools: str) -> dict[str, Any]:
    """A row as BFCL has it, where nothing is to be called."""
    return {
        "id": row_id,
        "question": [[{"role": "user", "content": query}]],
        "function": [{"name": name, "description": "", "parameters": {}} for name in tools],
    }


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits of BFCL that were asked for."""
    splits: list[str] = []
    rows = [
        question("irrelevance_1", "What's the weather?", "play"),
        question("live_irrelevance_2-0-0", "What's the weather?", "sing"),
        question("irrelevance_3", "Anything else?", "play"),
    ]

    def given(split: str, num_examples: int | None) -> list[dict[str, Any]]:
        splits.append(split)
        return rows

    monkeypatch.setattr(bfcl, "rows", given)
    return splits


def test_rows_that_ask_the_same_are_found_and_named(
    tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        tmp_path / "train.jsonl",
        line("a", "what's  the Weather", "play"),
        line("b", "Something of its own", "play"),
    )
    write(tmp_path / "test.jsonl", line("c", "Another thing", "play"))
    file = run(OverlapOptions(data=tmp_path))
    found = json.loads(file.read_text())
    assert found["rows"] == {"train": 2, "test": 1}
    assert found["shared"]["test"] == []
    assert found["shared"]["train"] == [
        {"row": "a", "category": "irrelevance", "theirs": "irrelevance_1", "has_same_tools": True},
        {
            "row": "a",
            "category": "live_irrelevance",
            "theirs": "live_irrelevance_2-0-0",
            "has_same_tools": False,
        },
    ]
    out = capsys.readouterr().out
    assert "train: 1 of 2 rows ask what BFCL asks: a" in out and "  irrelevance 1" in out
    assert "test: none of 1 rows is in BFCL" in out
    assert asked[0].count("+") == 9
    run(OverlapOptions(data=tmp_path, categories="irrelevance"))
    assert asked[1] == "irrelevance"


def test_without_splits_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No splits in"):
        run(OverlapOptions(data=tmp_path))


@pytest.mark.real
@pytest.mark.slow
def test_rows_made_of_bfcl_are_all_found(tmp_path: Path) -> None:
    rows = list(bfcl.rows("parallel", 3))
    lines = [
        line(row["id"], row["question"][0][0]["content"], *(f["name"] for f in row["function"]))
        for row in rows
    ]
    write(tmp_path / "train.jsonl", *lines)
    found = json.loads(run(OverlapOptions(data=tmp_path)).read_text())["shared"]["train"]
    assert {each["theirs"] for each in found} >= {row["id"] for row in rows}
    assert all(each["has_same_tools"] for each in found if each["row"] == each["theirs"])

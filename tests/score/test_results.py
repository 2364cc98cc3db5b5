import json
from pathlib import Path

import pytest

from calltune.calls import Answer, Choice, Json, Reading, ToolCall, answers_to_json
from calltune.errors import DataError
from calltune.score.results import answers_of, read_results, reading_of
from verdicts import verdict

ANSWER = Answer("f", {"x": Choice((1, 2))})


def record(id: str = "e1") -> dict[str, Json]:
    return {
        "id": id,
        "query": "Call f.",
        "n_tools": 1,
        "expected": answers_to_json((ANSWER,)),
        "text": "f(2)",
        "calls": [{"name": "f", "arguments": {"x": 2}}],
        "problem": None,
        "verdict": verdict(True),
    }


def document(*records: Json) -> dict[str, Json]:
    return {
        "model": "m",
        "adapter": None,
        "format": "gemma",
        "test_set": {"path": "test.jsonl", "sha256": "ab"},
        "results": list(records),
    }


def written(path: Path, data: Json) -> Path:
    path.write_text(json.dumps(data), "utf-8")
    return path


def test_a_results_file_is_read_whole(tmp_path: Path) -> None:
    results = read_results(written(tmp_path / "r.json", document(record("a"), record("b"))))
    assert list(results.records) == ["a", "b"]
    assert results.test_digest == "ab"
    assert reading_of(results.records["a"]) == Reading((ToolCall("f", {"x": 2}),))
    assert answers_of(results.records["b"]) == (ANSWER,)


def test_a_file_that_names_another_leads_to_it(tmp_path: Path) -> None:
    written(tmp_path / "real.json", document(record()))
    pointer = written(tmp_path / "test_model_results.json", {"results_file": "real.json"})
    assert read_results(pointer).path == tmp_path / "real.json"


def test_a_pointer_to_nothing_is_told_by_the_file_it_names(tmp_path: Path) -> None:
    pointer = written(tmp_path / "test_model_results.json", {"results_file": "gone.json"})
    with pytest.raises(DataError, match=r"gone\.json"):
        read_results(pointer)


@pytest.mark.parametrize("key", ["model", "adapter", "format", "test_set", "results"])
def test_a_document_without_a_key_is_refused_by_that_key(tmp_path: Path, key: str) -> None:
    data = document(record())
    del data[key]
    with pytest.raises(DataError, match=rf'r\.json .*"{key}" is missing'):
        read_results(written(tmp_path / "r.json", data))


@pytest.mark.parametrize("key", ["id", "expected", "text", "calls", "problem", "verdict"])
def test_a_record_without_a_key_is_refused_by_that_key(tmp_path: Path, key: str) -> None:
    broken = record("second")
    del broken[key]
    with pytest.raises(DataError, match=rf'"results\[1\]\.{key}" is missing'):
        read_results(written(tmp_path / "r.json", document(record(), broken)))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ([], "it is not an object"),
        (document(record()) | {"results": {}}, '"results" holds a dict'),
        (document(record()) | {"test_set": {"path": "t"}}, '"test_set.sha256" is missing'),
        (document("no record"), "results[0] is not an object"),
        (document(record() | {"n_tools": "3"}), '"results[0].n_tools" holds a str'),
        (document(record() | {"verdict": {}}), '"results[0].verdict.is_exact" is missing'),
        (document(record() | {"calls": ["f"]}), '"calls" or "expected" in results[0]'),
        (document(record() | {"expected": [{"name": "f"}]}), '"calls" or "expected" in results[0]'),
        (document(record("twin"), record("twin")), '"twin" occurs twice'),
    ],
)
def test_a_document_of_another_shape_is_refused(tmp_path: Path, data: Json, what: str) -> None:
    with pytest.raises(DataError) as caught:
        read_results(written(tmp_path / "r.json", data))
    assert what in str(caught.value)
    assert "r.json" in str(caught.value)
    assert "\n" not in str(caught.value)

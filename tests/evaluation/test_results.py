import json
from dataclasses import asdict
from pathlib import Path

import pytest

from calltune.errors import DataError
from calltune.evaluation.exact_match import differences
from calltune.evaluation.judge import judge
from calltune.evaluation.metrics import summarise
from calltune.evaluation.results import SCHEMA_VERSION, read_results
from calltune.evaluation.results_schema import LEVELS_AROUND
from calltune.types import (
    MAX_DEPTH,
    AcceptableArgument,
    Answer,
    Json,
    ParsedOutput,
    Tool,
    ToolCall,
    answers_to_json,
    reference_call,
)

from support.verdicts import verdict

ANSWER = Answer("f", {"x": AcceptableArgument((1, 2))})


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
    assert results.records["a"].parsed == ParsedOutput((ToolCall("f", {"x": 2}),))
    assert results.records["b"].expected == (ANSWER,)


def test_a_record_is_written_as_it_was_read(tmp_path: Path) -> None:
    whole = {
        "id": "e1",
        "source": "xlam",
        "query": "Call f.",
        "n_tools": 1,
        "unseen_tools": None,
        "expected": answers_to_json((ANSWER,)),
        "prompt_tokens": 9,
        "generated_tokens": 3,
        "text": "f(2)",
        "finish": "stop",
        "seconds": 0.5,
        "calls": [{"name": "f", "arguments": {"x": 2}}],
        "problem": None,
        "verdict": verdict(True),
        "not_held": ["f: uniqueItems"],
        "n_right": 1,
        "n_samples": 2,
    }
    read = read_results(written(tmp_path / "r.json", document(whole | {"later": 1}))).records["e1"]
    assert json.loads(json.dumps(read.to_json())) == whole
    assert list(read.to_json()) == list(whole)


def test_a_file_of_the_version_before_there_were_versions_is_read() -> None:
    file = Path(__file__).parents[1] / "support" / "old" / "results.json"
    document = json.loads(file.read_text("utf-8"))
    assert "schema_version" not in document
    results = read_results(file)
    assert (results.model, results.prompt_format) == ("pip:gemma3-270m", "gemma")
    assert results.adapter_digest == "0b" * 32 and results.test_digest == "0a" * 32
    again = [record.to_json() for record in results.records.values()]
    assert json.loads(json.dumps(again)) == document["results"]
    assert (
        asdict(summarise(list(results.records.values())).success)
        == (document["summary"]["success"])
    )


def test_a_file_of_a_later_version_is_refused_by_its_version(tmp_path: Path) -> None:
    later = document(record()) | {"schema_version": SCHEMA_VERSION + 1}
    with pytest.raises(DataError, match=r"r\.json .*schema_version 2.*update calltune"):
        read_results(written(tmp_path / "r.json", later))
    now = document(record()) | {"schema_version": SCHEMA_VERSION, "new": []}
    assert len(read_results(written(tmp_path / "r.json", now)).records) == 1


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
        (document(record() | {"seconds": "3"}), '"results[0].seconds" holds a str'),
        (document(record() | {"unseen_tools": [1]}), '"results[0].unseen_tools" holds a list'),
        (document(record() | {"verdict": {}}), '"results[0].verdict.is_exact" is missing'),
        (document(record() | {"calls": ["f"]}), '"calls" or "expected" in results[0]'),
        (document(record() | {"expected": [{"name": "f"}]}), '"calls" or "expected" in results[0]'),
        (document(record() | {"calls": [{"name": 3, "arguments": {}}]}), "are not calls"),
        (document(record() | {"calls": [{"name": "f", "arguments": "x"}]}), "are not calls"),
        (
            document(record() | {"verdict": verdict(True, functions=["a"])}),
            '"results[0].verdict.functions" does not hold three numbers',
        ),
        (document(record("twin"), record("twin")), '"twin" occurs twice'),
    ],
)
def test_a_document_of_another_shape_is_refused(tmp_path: Path, data: Json, what: str) -> None:
    with pytest.raises(DataError) as caught:
        read_results(written(tmp_path / "r.json", data))
    assert what in str(caught.value)
    assert "r.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_cut_off_is_refused_in_one_line(tmp_path: Path) -> None:
    whole = json.dumps(document(record("a"), record("b"))).encode()
    file = tmp_path / "r.json"
    for cut in range(0, len(whole), 7):
        file.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"r\.json is not JSON .*write it again"):
            read_results(file)


@pytest.mark.parametrize("damage", [b"\xff", b"\xc3", b"\xed\xa0\xbd"])
def test_text_that_is_no_utf_8_is_refused(tmp_path: Path, damage: bytes) -> None:
    file = written(tmp_path / "r.json", document(record()))
    file.write_bytes(file.read_bytes().replace(b"Call f.", damage))
    with pytest.raises(DataError, match=r"r\.json is not JSON .*can't decode byte"):
        read_results(file)


@pytest.mark.parametrize("depth", [MAX_DEPTH + LEVELS_AROUND, 400, 700, 10_000])
@pytest.mark.parametrize("place", ['{"x": 2}', "[1, 2]", '"f(2)"'])
def test_a_value_nested_too_deep_is_refused(tmp_path: Path, place: str, depth: int) -> None:
    file = written(tmp_path / "r.json", document(record()))
    text = file.read_text()
    assert place in text
    file.write_text(text.replace(place, '{"x": [' * (depth // 2) + "1" + "]}" * (depth // 2)))
    with pytest.raises(DataError, match=r"nested too deep|a dict|are not calls"):
        read_results(file)


def test_a_value_as_deep_as_formats_read_is_taken(tmp_path: Path) -> None:
    value: Json = 2
    for _ in range(MAX_DEPTH - 2):
        value = [value]
    deep = record() | {"calls": [{"name": "f", "arguments": {"x": value}}]}
    deep["expected"] = answers_to_json((Answer("f", {"x": AcceptableArgument((value,))}),))
    one = read_results(written(tmp_path / "r.json", document(deep))).records["e1"]
    found = judge(one.parsed, one.expected, {})
    assert found.is_exact and found.is_ast
    other = ParsedOutput((ToolCall("f", {"x": [value]}),))
    tools = {"f": Tool("f", "", {"properties": {}}, {})}
    assert judge(other, one.expected, tools).reason == "wrong value"
    assert differences(other, one.expected)
    assert reference_call(one.expected[0], "2").arguments == {"x": value}


def test_a_pointer_with_an_impossible_name_is_refused(tmp_path: Path) -> None:
    for name in ("x" * 5000, "\0", "..", ""):
        pointer = written(tmp_path / "p.json", {"results_file": name})
        with pytest.raises(DataError, match="No file"):
            read_results(pointer)

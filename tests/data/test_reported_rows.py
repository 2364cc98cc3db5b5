"""The rows of people's bug reports, each read as the table of kinds says: as it is, or dropped."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from calltune.commands.load import LoadOptions
from calltune.commands.load import run as load
from calltune.commands.prep import PrepOptions
from calltune.commands.prep import run as prep
from calltune.data.prepared import PreparedRow, read_prepared
from calltune.data.readers.recognise import parse
from calltune.schemas.tools import UnusableRow
from calltune.types import Json

CASES = Path(__file__).parent.parent / "cases" / "rows"
TIDES = {
    "name": "tide_table",
    "parameters": {
        "type": "object",
        "properties": {"harbour": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["harbour"],
    },
}


def prepared(tmp_path: Path, source: Path, **options: Any) -> tuple[list[PreparedRow], Any]:
    """All rows of a file after load and prep, and prep's report."""
    rows = load(LoadOptions(dataset=str(source), output_dir=tmp_path / "loaded"))
    alone: dict[str, Any] = {"train_ratio": 0, "val_ratio": 0, "test_ratio": 1}
    folder = prep(PrepOptions(input_file=rows, output_dir=tmp_path, **(alone | options)))
    report = json.loads((folder / "prep.json").read_text())
    return read_prepared(folder / "test.jsonl"), report


def calls(row: PreparedRow) -> list[tuple[str, dict[str, Json]]]:
    return [
        (answer.name, {key: choice.values[0] for key, choice in answer.arguments.items()})
        for answer in row.answers or ()
    ]


def by_id(rows: list[PreparedRow]) -> dict[str, PreparedRow]:
    return {row.id.partition("#")[0]: row for row in rows}


def properties(row: PreparedRow) -> list[set[str]]:
    return [set(tool["parameters"]["properties"]) for tool in row.tools]


@pytest.mark.parametrize("name", ["openai", "xlam"])
def test_arrows_nulls_are_no_data(tmp_path: Path, name: str) -> None:
    rows, _ = prepared(tmp_path, CASES / "01-arrow-nulls" / f"{name}.parquet")
    told = [call for row in rows for call in calls(row)]
    assert ("tide_table", {"harbour": "Husum", "days": 2}) in told
    assert ("book_ferry", {"route": "Foehr", "seats": 2}) in told
    for row in rows:
        assert "null" not in row.text
        for has in properties(row):
            assert has in ({"harbour", "days"}, {"route", "seats"}, {"flag"})


def test_arrows_nulls_in_a_saved_dataset_are_no_data(tmp_path: Path) -> None:
    ferry = {
        "name": "book_ferry",
        "parameters": {"type": "object", "properties": {"route": {"type": "string"}}},
    }
    saved = [
        {"query": tool["name"], "tools": [tool], "answers": [{"name": tool["name"], **given}]}
        for tool, given in (
            (TIDES, {"arguments": {"harbour": "Husum"}}),
            (ferry, {"arguments": {"route": "Wyk"}}),
        )
    ]
    datasets.Dataset.from_list(saved).save_to_disk(str(tmp_path / "saved"))
    rows, _ = prepared(tmp_path, tmp_path / "saved")
    assert sorted(calls(row)[0] for row in rows) == [
        ("book_ferry", {"route": "Wyk"}),
        ("tide_table", {"harbour": "Husum"}),
    ]
    assert all("null" not in row.text for row in rows)


@pytest.mark.parametrize(
    ("schema", "given", "expected"),
    [
        ({"x": {"type": ["string", "null"]}}, {"x": None}, {"x": None}),
        ({"x": {"type": "string", "nullable": True}}, {"x": None}, {"x": None}),
        ({"x": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, {"x": None}, {"x": None}),
        ({"x": {"type": "Optional[str]"}}, {"x": None}, {"x": None}),
        ({"x": {}}, {"x": None}, {"x": None}),
        ({"x": {}}, {"x": None, "other": None}, {}),
        ({"x": {"type": ["string", "null"]}}, {"x": None, "other": None}, {"x": None}),
        ({"x": {"type": "string"}}, {"x": None}, {}),
        ({"x": {"type": "object"}}, {"x": {"y": None}}, {"x": {"y": None}}),
        ({"x": {"type": "object"}}, {"x": {"y": None, "z": 1}, "other": None}, {"x": {"z": 1}}),
        (
            {"x": {"type": "object", "properties": {"y": {"type": "string"}}}},
            {"x": {"y": None, "z": None}},
            {"x": {}},
        ),
        (
            {"x": {"type": "array", "items": {"type": "object", "properties": {"y": {}}}}},
            {"x": [{"y": 1, "z": None}, {"y": 2, "z": None}]},
            {"x": [{"y": 1}, {"y": 2}]},
        ),
    ],
)
def test_a_null_that_the_tool_takes_is_kept(schema: Json, given: Json, expected: Json) -> None:
    tool = {"name": "f", "parameters": {"type": "object", "properties": schema}}
    row = {"query": "q", "tools": [tool], "answers": [{"name": "f", "arguments": given}]}
    (example,) = parse(row, "r").examples
    found = {key: choice.values[0] for key, choice in example.answers[0].arguments.items()}
    assert found == expected


def test_turns_of_calls_and_a_system_column_are_read(tmp_path: Path) -> None:
    rows, report = prepared(tmp_path, CASES / "02-sharegpt-function-call" / "rows.json")
    assert sorted(map(len, map(calls, rows))) == [0, 1, 2]
    assert sum("You work for a harbour office." in row.prompt for row in rows) == 1
    assert report["counts"]["kept"] == 3


def test_calls_in_the_text_are_read(tmp_path: Path) -> None:
    rows, _ = prepared(tmp_path, CASES / "03-calls-as-text" / "openai_messages.jsonl")
    assert len(rows) == 12
    for row in rows:
        assert calls(row) == [("tide_table", {"harbour": "Buesum", "days": 2})], row.id


def test_blank_arguments_are_none(tmp_path: Path) -> None:
    rows, _ = prepared(tmp_path, CASES / "04-empty-arguments" / "rows.jsonl")
    assert len(rows) == 7
    assert all(calls(row) == [("harbour_clock", {})] for row in rows)


def test_nulls_and_numbers_in_enums_are_right_answers_or_told(tmp_path: Path) -> None:
    rows, report = prepared(tmp_path, CASES / "07-nullable" / "rows.jsonl")
    told = {first.split("(")[1].split("#")[0] for first in report["answers_break_schema"]["first"]}
    found = by_id(rows)
    assert len(found) == 6
    for name, row in found.items():
        value = 2 if name == "enum-ints-with-string-type" else None
        assert calls(row) == [("set_flag", {"colour": value})], name
    assert told <= {"enum-ints-with-string-type"}


def test_roots_without_a_type_are_schemas(tmp_path: Path) -> None:
    rows, report = prepared(tmp_path, CASES / "08-root-without-type" / "rows.jsonl")
    assert len(rows) == 7
    assert all(calls(row) == [("file_note", {"title": "buoy"})] for row in rows)
    assert report["answers_break_schema"]["count"] == 0


def test_arguments_go_by_five_names(tmp_path: Path) -> None:
    rows, _ = prepared(tmp_path, CASES / "09-argument-key" / "rows.jsonl")
    assert len(rows) == 5
    assert all(calls(row) == [("tide_table", {"harbour": "Buesum"})] for row in rows)


@pytest.mark.parametrize(
    "call",
    [
        {"name": "tide_table", "wish": {"harbour": "a"}},
        {"name": "tide_table", "arguments": {"harbour": "a"}, "parameters": {"harbour": "b"}},
        {"name": "tide_table", "arguments": {}, "input": {"harbour": "b"}},
        {"name": "tide_table", "arguments": "harbour a"},
        {"name": "tide_table", "arguments": ["a"]},
        {"name": "tide_table", "arguments": '{"harbour": "a", "harbour": "b"}'},
        {"arguments": {"harbour": "a"}},
        {"function": {"name": "tide_table"}, "wish": {"harbour": "a"}},
        {"type": "custom", "custom": {"name": "tide_table", "input": "a"}},
    ],
)
def test_arguments_are_never_emptied(call: Json) -> None:
    turn = {"role": "assistant", "tool_calls": [call]}
    row = {"messages": [{"role": "user", "content": "q"}, turn], "tools": [TIDES]}
    with pytest.raises(UnusableRow) as caught:
        parse(row, "r")
    assert caught.value.detail.startswith("message 2 (assistant): ")


@pytest.mark.parametrize(
    "call",
    [
        {"function": {"name": "tide_table"}, "arguments": {"harbour": "a"}},
        {"functionCall": {"name": "tide_table", "args": {"harbour": "a"}}},
        {"toolUse": {"toolUseId": "1", "name": "tide_table", "input": {"harbour": "a"}}},
        {"name": "tide_table", "arguments": None, "parameters": {"harbour": "a"}},
        {"name": "tide_table", "arguments": '"{\\"harbour\\": \\"a\\"}"'},
        {"name": "tide_table", "arguments": "{'harbour': 'a'}"},
        {"tool_name": "tide_table", "tool_input": {"harbour": "a"}},
        {"tide_table": {"harbour": "a"}},
    ],
)
def test_other_shapes_of_a_call_are_read(call: Json) -> None:
    turn = {"role": "assistant", "tool_calls": [call]}
    row = {"messages": [{"role": "user", "content": "q"}, turn], "tools": [TIDES]}
    (example,) = parse(row, "r").examples
    assert example.answers[0].arguments["harbour"].values == ("a",)


def test_tags_in_strings_and_thoughts_do_not_matter(tmp_path: Path) -> None:
    rows, _ = prepared(tmp_path, CASES / "10-tag-in-string" / "hermes.jsonl")
    assert sorted(calls(row)[0][1]["text"] for row in rows) == [
        "Close every block with </tool_call> and open it with <tool_call>.",
        "End with </tool_call>.",
        "buoy",
    ]


@pytest.mark.parametrize(
    ("prompt_format", "kept"),
    [("gemma", {"tag-in-answer", "im-end-in-answer"}), ("chatml", {"eot-in-answer"})],
)
def test_control_tokens_in_an_answer_are_caught(
    tmp_path: Path, prompt_format: str, kept: set[str]
) -> None:
    source = CASES / "10-tag-in-string" / "openai.jsonl"
    rows, report = prepared(tmp_path, source, format=prompt_format)
    assert set(by_id(rows)) == kept
    (drop,) = report["dropped"].values()
    assert all(" in the answer, save_note: text: " in value for value in drop["values"])


@pytest.mark.parametrize("place", ["call", "result", "words"])
def test_control_tokens_in_history_are_caught(tmp_path: Path, place: str) -> None:
    marked = "<end_of_turn>"
    call = {"name": "tide_table", "arguments": {"harbour": marked if place == "call" else "a"}}
    last = {"name": "tide_table", "arguments": {"harbour": "b"}}
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": marked if place == "words" else "", "tool_calls": [call]},
        {"role": "tool", "content": marked if place == "result" else "r"},
        {"role": "assistant", "tool_calls": [last], "content": ""},
    ]
    source = tmp_path / "rows.jsonl"
    good = {"messages": [messages[0], messages[3]], "tools": [TIDES]}
    source.write_text(
        json.dumps({"messages": messages, "tools": [TIDES]}) + "\n" + json.dumps(good) + "\n"
    )
    rows, report = prepared(tmp_path, source)
    assert all(marked not in row.prompt[5:].replace("<end_of_turn>\n<start", "") for row in rows)
    ((reason, drop),) = report["dropped"].items()
    assert reason.startswith("control token") and drop["values"][0].startswith(marked)


def test_one_number_of_5000_digits_costs_one_row(tmp_path: Path) -> None:
    source = CASES / "12-numbers-letters" / "huge_int.jsonl"
    n_lines = len(source.read_text().splitlines())
    rows, _ = prepared(tmp_path, source)
    assert len(rows) == n_lines - 1
    alone: dict[str, Any] = {"train_ratio": 0, "val_ratio": 0, "test_ratio": 1}
    folder = prep(PrepOptions(input_file=source, output_dir=tmp_path / "direct", **alone))
    ((reason, drop),) = json.loads((folder / "prep.json").read_text())["dropped"].items()
    assert reason == "number of too many digits" and drop["values"][0].startswith("9999")


def test_a_key_twice_in_one_object_costs_its_row(tmp_path: Path) -> None:
    good = {"query": "q", "tools": [TIDES], "answers": []}
    twice = json.dumps(good).replace(
        "[]", '[{"name": "tide_table", "arguments": {"harbour": "Bonn", "harbour": "Ulm"}}]'
    )
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(good) + "\n" + twice + "\n")
    rows, _ = prepared(tmp_path, source)
    assert len(rows) == 1
    alone: dict[str, Any] = {"train_ratio": 0, "val_ratio": 0, "test_ratio": 1}
    folder = prep(PrepOptions(input_file=source, output_dir=tmp_path / "direct", **alone))
    dropped = json.loads((folder / "prep.json").read_text())["dropped"]
    assert dropped["a key twice in one object"]["values"] == ["harbour: ['Bonn', 'Ulm']"]


def test_each_role_is_read_or_told(tmp_path: Path) -> None:
    rows, report = prepared(tmp_path, CASES / "14-roles" / "rows.jsonl")
    found = by_id(rows)
    assert len(found) == 12
    assert calls(found.pop("tool-calls-empty")) == []
    assert all(calls(row) for row in found.values())
    assert calls(found["anthropic-blocks"]) == [("tide_table", {"harbour": "Buesum"})]
    for rule in ("First rule.", "Second rule."):
        assert rule in found["two-systems"].prompt
    ((_, drop),) = report["dropped"].items()
    assert drop["first"] == ["line 12 (openai-custom-tool)"]
    assert drop["values"] == ["message 2 (assistant): tool_calls: x"]


def test_an_unknown_role_is_shown() -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "boss", "content": "x"}]
    with pytest.raises(UnusableRow, match=r"unknown role: message 2 \(boss\): boss"):
        parse({"messages": turns, "tools": [TIDES]}, "r")


def test_answers_that_break_their_own_schema_are_counted_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, report = prepared(tmp_path, CASES / "15-undeclared-arguments" / "rows.jsonl")
    broken = report["answers_break_schema"]
    assert broken["count"] == 3
    assert broken["values"][0] == "tide_table: 'harbour' is a required property"
    assert sum(drop["count"] for drop in report["dropped"].values()) == 2
    printed = capsys.readouterr().out
    assert "kept 3 whose answer breaks its own schema (line 4" in printed
    assert "tide_table: harbour: Buesum" in printed


@pytest.mark.parametrize("name", ["concatenated", "pretty_object", "wrapped"])
def test_json_is_read_however_it_is_laid_out(tmp_path: Path, name: str) -> None:
    rows, _ = prepared(tmp_path, CASES / "17-files" / f"{name}.json")
    assert len(rows) == (2 if name == "concatenated" else 1)
    assert all(calls(row)[0][0] == "tide_table" for row in rows)


@pytest.mark.parametrize(
    "name",
    ["apigen_mt", "chatglm3", "functiongemma_tutorial", "glaive_v2", "toolace_raw", "when2call"],
)
def test_published_formats_are_read(tmp_path: Path, name: str) -> None:
    rows, _ = prepared(tmp_path, CASES / "18-formats" / f"{name}.jsonl")
    (row,) = rows
    arguments = {"harbour": "Husum"} | ({"days": 1} if name == "toolace_raw" else {})
    assert calls(row) == [("tide_table", arguments)]
    assert ("policy" in row.prompt) == (name == "apigen_mt")
    assert "You compose functions" not in row.prompt and "SYSTEM:" not in row.prompt


@pytest.mark.parametrize(
    ("row", "advice"),
    [
        ({"question": "q", "answers": {}, "correct_answer": "a", "tools": []}, "train_sft"),
        ({"prompt": [], "chosen": [], "rejected": []}, "supervised fine-tuning"),
        ({"contents": []}, "messages with tool_calls"),
        ({"instruction": "", "output": ""}, "Alpaca"),
    ],
)
def test_formats_that_are_not_read_are_named(row: dict[str, Json], advice: str) -> None:
    with pytest.raises(UnusableRow, match=advice):
        parse(row, "r")


def test_results_stand_by_their_ids(tmp_path: Path) -> None:
    rows, report = prepared(tmp_path, CASES / "21-result-order" / "rows.jsonl")
    last = [row for row in rows if row.id.endswith("#5")]
    assert len(last) == 2
    for row in last:
        assert row.prompt.index("LIST-TIME") < row.prompt.index("WYK-TIME")
    ((_, drop),) = report["dropped"].items()
    assert drop["values"] == ["tool_call_id zzz"]


@pytest.mark.parametrize(
    ("ids", "results", "expected"),
    [
        (("a", "b"), (("b", ""), ("a", "")), "10"),
        (("a", "a"), (("a", ""), ("a", "")), "01"),
        ((None, None), ((None, ""), (None, "")), "01"),
        ((None, None), ((None, "book_ferry"), (None, "tide_table")), "10"),
        (("a", "b"), (("b", ""),), "0"),
        ((None, None), (("x", ""), ("y", "")), None),
        (("a", "b"), (("a", ""), ("c", "")), None),
    ],
)
def test_results_are_put_in_the_order_of_their_calls(
    ids: tuple[str | None, ...], results: tuple[tuple[str | None, str], ...], expected: str | None
) -> None:
    ferry = {"name": "book_ferry", "parameters": {}}
    names = ("tide_table", "book_ferry")
    made = [
        {"id": i, "function": {"name": name, "arguments": {"harbour": "h"} if at == 0 else {}}}
        for at, (i, name) in enumerate(zip(ids, names, strict=True))
    ]
    told = [
        {"role": "tool", "tool_call_id": i, "name": name or None, "content": str(at)}
        for at, (i, name) in enumerate(results)
    ]
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": made},
        *told,
        {"role": "assistant", "tool_calls": [made[0] | {"id": "z"}]},
    ]
    row = {"messages": messages, "tools": [TIDES, ferry]}
    if expected is None:
        with pytest.raises(UnusableRow, match="result of a call that was not made"):
            parse(row, "r")
        return
    shown = parse(row, "r").examples[-1].messages
    assert "".join(m.content for m in shown if m.role == "tool") == expected


def test_flat_parameters_tell_what_is_required(tmp_path: Path) -> None:
    rows, report = prepared(tmp_path, CASES / "22-flat-required" / "rows.jsonl")
    assert len(rows) == 5
    assert all(list(calls(row)[0][1]) == ["title"] for row in rows)
    assert report["answers_break_schema"]["count"] == 0

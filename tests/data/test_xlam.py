import json

import pytest

from calltune.data.readers.recognise import parse
from calltune.schemas.tools import UnusableRow
from calltune.types import AcceptableArgument, Answer, Json

TOOL = {
    "name": "add",
    "description": "Adds.",
    "parameters": {"a": {"type": "int"}, "b": {"type": "int, optional"}},
}
CALL = {"name": "add", "arguments": {"a": 1}}


def row(**changes: Json) -> dict[str, Json]:
    return {
        "id": 7,
        "query": "Add 1",
        "tools": json.dumps([TOOL]),
        "answers": json.dumps([CALL]),
    } | changes


def reason(**changes: Json) -> str:
    with pytest.raises(UnusableRow) as caught:
        parse(row(**changes), "r1")
    return caught.value.reason


def test_a_row_becomes_one_example() -> None:
    (example,) = parse(row(), "r1").examples
    assert (example.id, example.query, example.source) == ("7", "Add 1", "xlam")
    assert example.answers == (Answer("add", {"a": AcceptableArgument((1,))}),)
    assert example.tools[0].raw == TOOL
    assert example.tools[0].parameters["required"] == ["a"]


def test_lists_in_place_of_strings_say_the_same() -> None:
    assert parse(row(tools=[TOOL], answers=[CALL]), "r1") == parse(row(), "r1")


def test_no_answers_in_the_list_means_that_nothing_is_called() -> None:
    assert parse(row(answers="[]"), "r1").examples[0].answers == ()


def test_a_row_without_an_id_takes_the_given_one() -> None:
    assert parse(row(id=None), "r1").examples[0].id == "r1"


def test_a_tool_that_stands_there_twice_is_kept_once() -> None:
    parsed = parse(row(tools=[TOOL, TOOL]), "r1")
    assert len(parsed.examples[0].tools) == 1
    assert parsed.notes == ("tool offered twice",)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"query": " "}, "no query"),
        ({"query": None}, "no query"),
        ({"tools": "[]"}, "no tools"),
        ({"tools": "[{"}, "tools are not JSON"),
        ({"tools": 3}, "tools are not a list"),
        ({"tools": [TOOL, TOOL | {"description": "Other."}]}, "two different tools of one name"),
        ({"tools": [{"name": "add", "parameters": [1]}]}, "tool parameters are not an object"),
        ({"answers": None}, "no answers"),
        ({"answers": "nope"}, "answers are not JSON"),
        ({"answers": "[" * 100_000}, "answers are not JSON"),
        ({"answers": "9" * 5000}, "answers are not JSON"),
        (
            {"answers": '[{"name": "add", "arguments": {"a": 1e999}}]'},
            "number that JSON does not have",
        ),
        ({"answers": [{"name": "sub", "arguments": {}}]}, "call to a tool that is not offered"),
        ({"answers": [{"name": "add", "arguments": {"c": 1}}]}, "argument the tool does not have"),
        ({"answers": [{"name": "add", "arguments": [1]}]}, "arguments are not an object"),
        ({"query": "half \ud83d"}, "broken Unicode"),
    ],
)
def test_an_unusable_row_says_why(changes: dict[str, Json], expected: str) -> None:
    assert reason(**changes) == expected


def test_a_row_without_the_query_key_is_still_known_as_xlam() -> None:
    with pytest.raises(UnusableRow, match="no query"):
        parse({"tools": [TOOL], "answers": [CALL]}, "r1")


def test_the_detail_of_a_large_value_is_short() -> None:
    with pytest.raises(UnusableRow) as caught:
        parse(row(tools="x" * 5_000_000), "r1")
    assert len(caught.value.detail) == 80

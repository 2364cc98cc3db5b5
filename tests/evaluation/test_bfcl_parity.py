"""calltune's `ast` verdict against BFCL's own checker, on BFCL's own rows."""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from calltune.data.readers.recognise import parse
from calltune.data.sources import bfcl
from calltune.evaluation import ast_match
from calltune.evaluation.ast_match import accepts, is_ast_match
from calltune.evaluation.exact_match import cheapest_pairs
from calltune.schemas.tools import UnusableRow
from calltune.types import (
    AcceptableArgument,
    AcceptableObject,
    AcceptableValue,
    Answer,
    Example,
    Json,
    ParsedOutput,
    ToolCall,
)

from support.bfcl_checker import Call, gold, load_checker, mutated

pytestmark = pytest.mark.real
ROUNDS = 2
"""Golden answers of a row, each with as many mutated ones as there are kinds."""
Checker = Callable[[Json, list[Call], Json, str], bool]


@pytest.fixture(scope="module")
def checker() -> Checker:
    return load_checker()


def rows() -> Iterator[tuple[str, dict[str, Json], Example]]:
    """Every row that calltune takes, and its category."""
    for category in bfcl.CATEGORIES:
        for row in bfcl.rows(category, None):
            try:
                (example,) = parse(row, "row").examples
            except UnusableRow:
                continue
            yield category, row, example


def ours(calls: list[Call], example: Example) -> bool:
    tools = {tool.name: tool for tool in example.tools}
    return is_ast_match(ParsedOutput(tool_calls(calls)), example.answers, tools)


def tool_calls(calls: list[Call]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(*pair) for call in calls for pair in call.items())


@pytest.mark.slow
def test_the_verdicts_differ_only_where_the_list_says(checker: Checker) -> None:
    counts: Counter[str] = Counter()
    for category, row, example in rows():
        rng = random.Random(row["id"])
        for _ in range(ROUNDS):
            golden = gold(row["ground_truth"], rng)
            for number, calls in enumerate([golden, *mutated(golden, rng)]):
                counts["golden" if number == 0 else "mutated"] += 1
                counts["unchanged"] += number > 0 and calls == golden
                mine = ours(calls, example)
                theirs = checker(row["function"], calls, row["ground_truth"], category)
                counts["passed" if theirs else "failed"] += 1
                if mine == theirs:
                    continue
                assert number > 0, f"{row['id']}: {calls}"
                if theirs:
                    reason = why_stricter(calls, example)
                else:
                    reason = why_milder(checker, category, row, calls, example)
                assert reason, f"{row['id']}: {calls} pass for one only: {row['ground_truth']}"
                counts[reason] += 1
    # Golden answers of eight categories, and enough others of either kind.
    assert counts["golden"] > 4_000
    assert counts["mutated"] - counts["unchanged"] > 15_000
    assert counts["passed"] > 10_000 and counts["failed"] > 10_000


def why_stricter(calls: list[Call], example: Example) -> str:
    """The listed rule without which calltune would let the calls pass; empty if none is."""
    for name, loosened in LOOSENED.items():
        if loosened(calls, example):
            return name
    return ""


def _with_their_text(calls: list[Call], example: Example) -> bool:
    own = ast_match.standard
    try:
        ast_match.standard = lambda text: re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')
        return ours(calls, example)
    finally:
        ast_match.standard = own


def _with_any_number(calls: list[Call], example: Example) -> bool:
    """`true` for 1 and 5.0 for 5."""
    looser = replace(
        example,
        answers=tuple(Answer(a.name, _numbers_of(a.arguments)) for a in example.answers),
        tools=tuple(
            replace(tool, parameters={"required": tool.parameters.get("required", [])})
            for tool in example.tools
        ),
    )
    return ours([{n: _numbers(a) for n, a in call.items()} for call in calls], looser)


def _numbers_of(choices: dict[str, AcceptableArgument]) -> dict[str, AcceptableArgument]:
    return {
        key: AcceptableArgument(
            tuple(_numbers(value) for value in choice.values), choice.is_optional
        )
        for key, choice in choices.items()
    }


def _numbers(value: AcceptableValue) -> Any:
    if isinstance(value, AcceptableObject):
        return AcceptableObject(_numbers_of(value.keys))
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if isinstance(value, int | float) else value


def _without_empty_ones(calls: list[Call], example: Example) -> bool:
    """Empty values of optional arguments taken for arguments that are left out."""
    optional = {
        (answer.name, key)
        for answer in example.answers
        for key, choice in answer.arguments.items()
        if choice.is_optional
    }
    left = [
        {n: {k: v for k, v in a.items() if v not in ("", []) or (n, k) not in optional}}
        for call in calls
        for n, a in call.items()
    ]
    return ours(left, example)


LOOSENED = {
    "signs and points": _with_their_text,
    "types at any depth": _with_any_number,
    "empty is not left out": _without_empty_ones,
}


def why_milder(
    checker: Checker, category: str, row: dict[str, Json], calls: list[Call], example: Example
) -> str:
    """The listed rule that BFCL lacks: with its effect taken away it is content."""
    tools = {tool.name: tool for tool in example.tools}
    made = tool_calls(calls)
    misfits = [[0 if accepts(a, c, tools[c.name]) else 1 for a in example.answers] for c in made]
    order = sorted(cheapest_pairs(misfits), key=lambda pair: pair.column)
    paired = [calls[pair.row] for pair in order]
    floats = [{n: {k: _floats(v) for k, v in a.items()} for n, a in call.items()} for call in calls]
    for name, changed in (("best pairing", paired), ("whole numbers in lists", floats)):
        if checker(row["function"], changed, row["ground_truth"], category):
            return name
    return ""


def _floats(value: Json) -> Json:
    if not isinstance(value, list):
        return value
    return [float(item) if type(item) is int else _floats(item) for item in value]


def one(kind: Json, choices: Json, value: Json) -> tuple[dict[str, Json], list[Call]]:
    """A row with one tool of one argument, and a call to it."""
    properties = {"x": kind if isinstance(kind, dict) else {"type": kind}}
    function = {
        "name": "f",
        "description": "",
        "parameters": {"type": "dict", "properties": properties, "required": ["x"]},
    }
    row = {
        "id": "simple_python_0",
        "question": [[{"role": "user", "content": "?"}]],
        "function": [function],
        "ground_truth": [{"f": {"x": choices}}],
    }
    return row, [{"f": {"x": value}}]


LIST_OF_FLOATS = {"type": "array", "items": {"type": "float"}}
LIST_OF_LISTS = {"type": "array", "items": {"type": "array"}}
WHOLE = {"type": "dict", "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("kind", "choices", "value", "passed"),
    [
        ("string", ["-5"], "5", False),
        ("string", ["1.5"], "15", False),
        ("dict", [{"on": [False]}], {"on": 0}, False),
        (WHOLE, [{"n": [5]}], {"n": 5.0}, False),
        ({"type": "array", "items": {"type": "string"}}, ["", ["a"]], [], False),
        (LIST_OF_FLOATS, [[1.0, 2.0]], [1, 2], True),
        ("dict", [{"at": [{"unit": ["Metre"]}]}], {"at": {"unit": "Metre"}}, True),
        (LIST_OF_LISTS, [[["New York"]]], [["new york"]], True),
        ("string", ["a", 5], 5, True),
        ("number", [5], 5, True),
        ("object", [{"n": [1]}], {"n": 1}, True),
    ],
)
def test_each_difference_is_one(
    checker: Checker, kind: Json, choices: Json, value: Json, passed: bool
) -> None:
    """The list in the judging page of the docs; BFCL says the opposite, or raises a KeyError."""
    row, calls = one(kind, choices, value)
    (example,) = parse(row, "row").examples
    assert ours(calls, example) is passed
    try:
        theirs = checker(row["function"], calls, row["ground_truth"], "simple_python")
    except KeyError:
        theirs = not passed
    assert theirs is not passed


def test_its_greedy_pairing_is_one(checker: Checker) -> None:
    row, _ = one("integer", [1, 2], 0)
    row["ground_truth"].append({"f": {"x": [1]}})
    calls: list[Call] = [{"f": {"x": 1}}, {"f": {"x": 2}}]
    (example,) = parse(row, "row").examples
    assert ours(calls, example)
    assert not checker(row["function"], calls, row["ground_truth"], "parallel")
    assert checker(row["function"], calls[::-1], row["ground_truth"], "parallel")

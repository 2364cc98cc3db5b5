"""Exact match: whether the calls a model made are those that were right, and what differs.

Calls and answers are paired one to one, as `cheapest_pairs` does it, so their order never matters.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from math import inf
from typing import NamedTuple

from calltune.files import dumps
from calltune.schemas.keywords import declared_types, items_schema, property_schema
from calltune.types import (
    AcceptableArgument,
    AcceptableObject,
    AcceptableValue,
    Answer,
    Json,
    ParsedOutput,
    Tool,
    ToolCall,
)

NO_TOOLS: Mapping[str, Tool] = {}
SHOWN_CHARACTERS = 60
"""A difference shows one value up to this length."""
SHOWN_VALUES = 3
"""A difference shows this many acceptable values."""


def is_exact_match(
    parsed: ParsedOutput, answers: tuple[Answer, ...], tools: Mapping[str, Tool] = NO_TOOLS
) -> bool:
    """Whether the calls are the answers: one to one, in any order, names and arguments.

    A text that could not be parsed is never right, even where nothing was to be called. `tools` are
    those on offer, by name; they say which numbers must be integers.
    """
    return has_right_names(parsed, answers) and all_fit(
        parsed.calls, answers, lambda answer, call: accepts(answer, call, tools.get(call.name))
    )


def has_right_names(parsed: ParsedOutput, answers: tuple[Answer, ...]) -> bool:
    """Whether each function is called as often as the answers ask; false for unparsed text."""
    return parsed.problem is None and (
        Counter(call.name for call in parsed.calls) == Counter(answer.name for answer in answers)
    )


def accepts(answer: Answer, call: ToolCall, tool: Tool | None = None) -> bool:
    """Whether this call is the one that `answer` asks for; `tool` is the one that is called."""
    return call.name == answer.name and _accepts_object(
        answer.arguments, call.arguments, {} if tool is None else tool.parameters
    )


def differences(
    parsed: ParsedOutput, answers: tuple[Answer, ...], tools: Mapping[str, Tool] = NO_TOOLS
) -> tuple[str, ...]:
    """What is wrong with a parsed output, one sentence each; empty where it is an exact match.

    A call is compared with an answer of the same function; of several, calls and answers are
    paired so that there is least to say. `tools` as for `is_exact_match`.
    """
    if parsed.problem is not None:
        return (f"does not parse: {parsed.problem}",)
    names = dict.fromkeys([a.name for a in answers] + [c.name for c in parsed.calls])
    return tuple(
        difference
        for name in names
        for difference in _differences_of_function(
            name,
            [call for call in parsed.calls if call.name == name],
            [answer for answer in answers if answer.name == name],
            tools[name].parameters if name in tools else {},
        )
    )


def all_fit(
    calls: tuple[ToolCall, ...],
    answers: tuple[Answer, ...],
    fits: Callable[[Answer, ToolCall], bool],
) -> bool:
    """Whether calls and as many answers can be paired so that each call fits its answer."""
    # First come, first served is not enough: a call that fits two answers may take the only
    # one that another call fits.
    misfits = [[0 if fits(answer, call) else 1 for answer in answers] for call in calls]
    return not any(misfits[pair.row][pair.column] for pair in cheapest_pairs(misfits))


def _accepts_object(
    choices: dict[str, AcceptableArgument], value: dict[str, Json], schema: Json
) -> bool:
    return value.keys() <= choices.keys() and all(
        accepts_value(choice, value[key], property_schema(schema, key))
        if key in value
        else choice.is_optional
        for key, choice in choices.items()
    )


def accepts_value(choice: AcceptableArgument, value: Json, schema: Json) -> bool:
    """Whether a value is one of the acceptable values of an argument with this schema."""
    return any(_accepts_value(acceptable, value, schema) for acceptable in choice.values)


def _accepts_value(acceptable: AcceptableValue, value: Json, schema: Json) -> bool:
    if isinstance(acceptable, AcceptableObject | dict):
        return isinstance(value, dict) and _accepts_object(choices_of(acceptable), value, schema)
    if isinstance(acceptable, list):
        return (
            isinstance(value, list)
            and len(acceptable) == len(value)
            and all(
                _accepts_value(a, v, items_schema(schema))
                for a, v in zip(acceptable, value, strict=True)
            )
        )
    return is_same_scalar(acceptable, value, schema)


def is_same_scalar(acceptable: Json, value: Json, schema: Json) -> bool:
    """Whether two values that hold no others are equal, for an argument with this schema.

    `true` is not 1. 5 is 5.0, except that 5.0 does not stand for a 5 where the schema asks for an
    integer: to JSON Schema it is one, but to BFCL's checker and to many programs it is not.
    """
    if isinstance(acceptable, bool) or isinstance(value, bool):
        return acceptable is value
    if isinstance(value, float) and isinstance(acceptable, int):
        types = declared_types(schema)
        return ("integer" not in types or "number" in types) and acceptable == value
    return bool(acceptable == value)


def choices_of(
    acceptable: AcceptableObject | dict[str, AcceptableValue],
) -> dict[str, AcceptableArgument]:
    """What is acceptable for each key of an object."""
    if isinstance(acceptable, AcceptableObject):
        return acceptable.keys
    return {key: AcceptableArgument((item,)) for key, item in acceptable.items()}


class Pair(NamedTuple):
    """One row and the column it goes with."""

    row: int
    column: int


def cheapest_pairs(costs: list[list[int]]) -> list[Pair]:
    """Pair every row, or every column when they are fewer, at the least total cost.

    costs (rows, columns), rectangular. Time grows with the cube of the size.
    """
    if not costs or not costs[0]:
        return []
    if len(costs) > len(costs[0]):
        turned = [list(column) for column in zip(*costs, strict=True)]
        return sorted(Pair(column, row) for row, column in cheapest_pairs(turned))
    return _pair_every_row(costs)


def _differences_of_function(
    name: str, calls: list[ToolCall], answers: list[Answer], schema: Json
) -> list[str]:
    found = [
        [_object_differences(name, answer.arguments, call.arguments, schema) for answer in answers]
        for call in calls
    ]
    pairs = cheapest_pairs([[len(differences) for differences in row] for row in found])
    paired = {pair.row for pair in pairs}
    return (
        [difference for pair in pairs for difference in found[pair.row][pair.column]]
        + [f"missing call to {name}"] * (len(answers) - len(pairs))
        + [
            f"extra call to {name}{', the same as another' if calls.count(call) > 1 else ''}"
            for row, call in enumerate(calls)
            if row not in paired
        ]
    )


def _object_differences(
    where: str, choices: dict[str, AcceptableArgument], value: dict[str, Json], schema: Json
) -> list[str]:
    lines = [f"{where}: argument {key} is not known" for key in value if key not in choices]
    for key, choice in choices.items():
        if key in value:
            inside = property_schema(schema, key)
            lines += _value_differences(f"{where}.{key}", choice, value[key], inside)
        elif not choice.is_optional:
            lines.append(f"{where}.{key}: left out where {_listed(choice)} was right")
    return lines


def _value_differences(
    where: str, choice: AcceptableArgument, value: Json, schema: Json
) -> list[str]:
    if accepts_value(choice, value, schema):
        return []
    objects = [a for a in choice.values if isinstance(a, AcceptableObject | dict)]
    if isinstance(value, dict) and objects:
        found = (_object_differences(where, choices_of(a), value, schema) for a in objects)
        return min(found, key=len)
    return [f"{where}: {_shown(value)} where {_listed(choice)} was right"]


def _listed(choice: AcceptableArgument) -> str:
    if not choice.values:
        return "nothing"
    if len(choice.values) > SHOWN_VALUES:
        shown = ", ".join(_shown(value) for value in choice.values[:SHOWN_VALUES])
        return f"{shown} or one of {len(choice.values) - SHOWN_VALUES} more"
    *most, last = (_shown(value) for value in choice.values)
    return f"{', '.join(most)} or {last}" if most else last


def _shown(value: AcceptableValue) -> str:
    text = dumps(_first_of(value))
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _first_of(value: AcceptableValue) -> Json:
    """An acceptable value as plain JSON: of each choice inside it the first."""
    if isinstance(value, AcceptableObject):
        return {
            key: _first_of(choice.values[0])
            for key, choice in value.keys.items()
            if choice.values and not choice.is_optional
        }
    if isinstance(value, dict):
        return {key: _first_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_first_of(item) for item in value]
    return value


def _pair_every_row(costs: list[list[int]]) -> list[Pair]:
    # The Hungarian method: prices keep each reduced cost at zero or above, so that every row
    # can take its column by a shortest path. Row and column 0 stand for "none".
    n_rows, n_columns = len(costs), len(costs[0])
    row_price, column_price = [0.0] * (n_rows + 1), [0.0] * (n_columns + 1)
    row_of = [0] * (n_columns + 1)
    for start in range(1, n_rows + 1):
        row_of[0] = start
        least, came_from = [inf] * (n_columns + 1), [0] * (n_columns + 1)
        is_done = [False] * (n_columns + 1)
        column = 0
        while row_of[column]:
            is_done[column] = True
            row = row_of[column]
            for other in range(1, n_columns + 1):
                reduced = costs[row - 1][other - 1] - row_price[row] - column_price[other]
                if not is_done[other] and reduced < least[other]:
                    least[other], came_from[other] = reduced, column
            open_columns = [c for c in range(1, n_columns + 1) if not is_done[c]]
            nearest = min(open_columns, key=lambda c: least[c])
            step = least[nearest]
            for other in range(n_columns + 1):
                if is_done[other]:
                    row_price[row_of[other]] += step
                    column_price[other] -= step
                else:
                    least[other] -= step
            column = nearest
        while column:
            row_of[column] = row_of[came_from[column]]
            column = came_from[column]
    return sorted(Pair(row_of[c] - 1, c - 1) for c in range(1, n_columns + 1) if row_of[c])

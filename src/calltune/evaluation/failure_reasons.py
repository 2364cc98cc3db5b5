"""Failure reasons: why an answer is no exact match, and what came of rows that need no call."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from calltune.evaluation.ast_match import json_type
from calltune.evaluation.exact_match import accepts_value, cheapest_pairs
from calltune.schemas.keywords import declared_types, property_schema
from calltune.schemas.parameters import allows
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

Reason = Literal[
    "cut off",
    "not readable",
    "called anyway",
    "no call",
    "invented function",
    "wrong function",
    "too few calls",
    "too many calls",
    "invented argument",
    "missing argument",
    "wrong type",
    "wrong value",
]
"""In the order in which they are looked for: the first that applies is the reason."""
REASONS: tuple[Reason, ...] = get_args(Reason)

Abstention = Literal["abstained", "called anyway", "malformed"]
"""What came of a row that needs no call; text that does not parse does not abstain."""
ABSTENTIONS: tuple[Abstention, ...] = get_args(Abstention)


def reason(
    parsed: ParsedOutput,
    answers: tuple[Answer, ...],
    tools: Mapping[str, Tool],
    finish: str = "stop",
) -> Reason | None:
    """Why a parsed output is no exact match; None where it is one.

    Args:
        parsed: What was parsed from the model's text.
        answers: The calls that are right.
        tools: The tools on offer, by name.
        finish: "length" where the token limit ended the text, else "stop".
    """
    if parsed.problem is not None:
        return "cut off" if finish == "length" else "not readable"
    if not answers or not parsed.calls:
        return _reason_without(parsed.calls, answers)
    return _reason_of_names(parsed.calls, answers, tools) or _reason_of_arguments(
        parsed.calls, answers, tools
    )


def abstention(parsed: ParsedOutput, answers: tuple[Answer, ...]) -> Abstention | None:
    """What came of a row that needs no call; None for one that needs some."""
    if answers:
        return None
    if parsed.problem is not None:
        return "malformed"
    return "called anyway" if parsed.calls else "abstained"


def _reason_without(calls: Sequence[ToolCall], answers: Sequence[Answer]) -> Reason | None:
    if calls:
        return "called anyway"
    return "no call" if answers else None


def _reason_of_names(
    calls: Sequence[ToolCall], answers: Sequence[Answer], tools: Mapping[str, Tool]
) -> Reason | None:
    if any(call.name not in tools for call in calls):
        return "invented function"
    made, wanted = Counter(call.name for call in calls), Counter(a.name for a in answers)
    if made == wanted:
        return None
    if not made - wanted:
        return "too few calls"
    return "too many calls" if not wanted - made else "wrong function"


def _reason_of_arguments(
    calls: Sequence[ToolCall], answers: Sequence[Answer], tools: Mapping[str, Tool]
) -> Reason | None:
    """The first of `REASONS` in the pairing of calls and answers that has fewest reasons."""
    found = [[_reasons_of_call(c, a, tools[c.name]) for a in answers] for c in calls]
    pairs = cheapest_pairs([[len(reasons) for reasons in row] for row in found])
    all_found = {reason for pair in pairs for reason in found[pair.row][pair.column]}
    return min(all_found, key=REASONS.index, default=None)


def _reasons_of_call(call: ToolCall, answer: Answer, tool: Tool) -> list[Reason]:
    if call.name != answer.name:
        # The names were counted before, so another pairing has none of these.
        return ["wrong function"] * (1 + len(call.arguments) + len(answer.arguments))
    schema = tool.parameters
    reasons: list[Reason] = []
    for key, value in call.arguments.items():
        if key not in answer.arguments:
            reasons.append("wrong value" if allows(schema, key) else "invented argument")
        elif not accepts_value(answer.arguments[key], value, property_schema(schema, key)):
            reasons.append(
                _reason_of_value(value, property_schema(schema, key), answer.arguments[key])
            )
    reasons += [
        "missing argument"
        for key, choice in answer.arguments.items()
        if key not in call.arguments and not choice.is_optional
    ]
    return reasons


def _reason_of_value(value: Json, schema: Json, choice: AcceptableArgument) -> Reason:
    """A wrong type where neither the schema nor any right value has the value's type."""
    kind = json_type(value)
    allowed = set(declared_types(schema)) | {_type_of(right) for right in choice.values}
    if "number" in allowed:
        allowed.add("integer")
    return "wrong value" if kind in allowed or not declared_types(schema) else "wrong type"


def _type_of(right: AcceptableValue) -> str:
    return "object" if isinstance(right, AcceptableObject) else json_type(right)

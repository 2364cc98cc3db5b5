"""AST match: whether calls pass by the rules of BFCL, which are milder than exact match.

Source: `ast_checker` and the possible answers of the Berkeley Function-Calling Leaderboard
(bfcl-eval 2026.3.23, bfcl_eval/eval_checker/ast_eval/ast_checker.py), for its single-turn Python
categories. Strings are compared without case, spaces and some punctuation; an integer may stand
where the tool asks for a float; a required argument must be there whatever the answer allows.
`docs/how-it-works/judging.md` lists where this differs from it, with an example each.
"""

import re
from collections.abc import Mapping

from calltune.evaluation.exact_match import all_fit, choices_of, is_same_scalar
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

_IGNORED = re.compile(r"[ ,./\-_*^]")
_NUMBER = re.compile(r"(?<![\w.,])(-?)(\d+(?:\.\d+)?|\.\d+)(?![\w.]|,\d|-\d|/\d)")
"""A number that stands alone, whose sign and decimal point matter."""
_MARKS = str.maketrans({"-": "\N{MINUS SIGN}", ".": "\N{MIDDLE DOT}"})


def is_ast_match(
    parsed: ParsedOutput, answers: tuple[Answer, ...], tools: Mapping[str, Tool]
) -> bool:
    """Whether the parsed calls pass for the answers, in any order.

    Text that could not be parsed never passes. `tools` are those on offer, by name.
    """
    if parsed.problem is not None or len(parsed.calls) != len(answers):
        return False
    return all_fit(
        parsed.calls, answers, lambda answer, call: accepts(answer, call, tools.get(call.name))
    )


def accepts(answer: Answer, call: ToolCall, tool: Tool | None) -> bool:
    """Whether this call passes for the one that `answer` asks for."""
    if call.name != answer.name:
        return False
    schema: dict[str, Json] = {} if tool is None else tool.parameters
    required = schema.get("required", [])
    return all(key in call.arguments for key in required) and _accepts_object(
        answer.arguments, call.arguments, schema
    )


def standard(text: str) -> str:
    """The text without what BFCL ignores: case, spaces, `,./-_*^`, and the kind of quotes.

    The sign and decimal point of a number that stands alone are kept.
    """
    kept = _NUMBER.sub(lambda number: number[0].translate(_MARKS), text)
    return _IGNORED.sub("", kept).lower().replace("'", '"')


def json_type(value: Json) -> str:
    """The JSON Schema name of a value's type; a number without a fraction part is an integer."""
    kinds = (
        (bool, "boolean"),
        (str, "string"),
        (int, "integer"),
        (float, "number"),
        (list, "array"),
        (dict, "object"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")


def _accepts_object(
    choices: dict[str, AcceptableArgument], value: dict[str, Json], schema: Json
) -> bool:
    return value.keys() <= choices.keys() and all(
        _accepts_choice(choice, value[key], property_schema(schema, key))
        if key in value
        else choice.is_optional
        for key, choice in choices.items()
    )


def _accepts_choice(choice: AcceptableArgument, value: Json, schema: Json) -> bool:
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
    if isinstance(acceptable, str) and isinstance(value, str):
        types = declared_types(schema)
        # Text for another type, such as the name of a variable, is compared as it is.
        if types and "string" not in types:
            return acceptable == value
        return standard(acceptable) == standard(value)
    return is_same_scalar(acceptable, value, schema)

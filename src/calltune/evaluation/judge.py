"""All that is said of one answer: both verdicts, why it failed, and whether it abstained.

Whether calls keep to the tools' JSON Schemas, whatever is right to call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calltune.evaluation.ast_match import is_ast_match
from calltune.evaluation.exact_match import has_right_names, is_exact_match
from calltune.evaluation.failure_reasons import (
    Abstention,
    Reason,
    abstention,
    reason,
)
from calltune.evaluation.metrics import Count, argument_count, function_count
from calltune.schemas.parameters import allows
from calltune.schemas.validate import satisfies
from calltune.types import Answer, ParsedOutput, Tool, ToolCall


def are_valid(calls: Sequence[ToolCall], tools: Mapping[str, Tool]) -> bool:
    """Whether every call is to a tool on offer, and its arguments satisfy the tool's schema.

    An argument that the tool does not have is not valid, forbidden or not. What a broken schema
    says is not held against anybody.
    """
    return not invents_function(calls, tools) and all(
        not invented_arguments(call, tools[call.name])
        and satisfies(call.arguments, tools[call.name].parameters)
        for call in calls
    )


def invents_function(calls: Sequence[ToolCall], tools: Mapping[str, Tool]) -> bool:
    """Whether a function is called that is not on offer."""
    return any(call.name not in tools for call in calls)


def invented_arguments(call: ToolCall, tool: Tool) -> list[str]:
    """The call's arguments that the tool does not have."""
    return [name for name in call.arguments if not allows(tool.parameters, name)]


@dataclass(frozen=True, slots=True)
class Judgement:
    """One answer, judged; a results file keeps it under these names."""

    is_exact: bool
    """The calls are the answers: one to one, in any order, names and arguments."""
    is_ast: bool
    """They pass by BFCL's rules: see `ast_match`."""
    has_right_names: bool
    """The functions are called as often as they should be."""
    is_parsed: bool
    """The text could be read, be it as calls or as none."""
    is_valid: bool
    """It could be read, and its calls keep to the tools' schemas, be they right or not."""
    invents_function: bool
    """It calls a function that is not on offer."""
    invents_argument: bool
    """It gives a function an argument that it does not have."""
    functions: Count
    arguments: Count
    reason: Reason | None
    """Why it is not exact."""
    abstention: Abstention | None
    """For a row that needs no call: what came of it."""


def judge(
    parsed: ParsedOutput,
    answers: tuple[Answer, ...],
    tools: Mapping[str, Tool],
    finish: str = "stop",
) -> Judgement:
    """Judge one parsed output; `finish` is "length" where the token limit ended it."""
    calls, is_parsed = parsed.calls, parsed.problem is None
    is_exact = is_exact_match(parsed, answers)
    return Judgement(
        is_exact=is_exact,
        is_ast=is_ast_match(parsed, answers, tools),
        has_right_names=has_right_names(parsed, answers),
        is_parsed=is_parsed,
        is_valid=is_parsed and are_valid(calls, tools),
        invents_function=invents_function(calls, tools),
        invents_argument=any(
            invented_arguments(call, tools[call.name]) for call in calls if call.name in tools
        ),
        functions=function_count(parsed, answers),
        arguments=argument_count(parsed, answers),
        reason=None if is_exact else reason(parsed, answers, tools, finish),
        abstention=abstention(parsed, answers),
    )

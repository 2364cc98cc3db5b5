"""Judging of one answer: `judge` is where a model's calls are compared with the right ones.

It puts together `exact_match` and `ast_match` (are they right?), `failure_reasons` (why not?),
`metrics` (how much of them is right?) and the checks below (do they satisfy the tools' schemas?).
A new metric over many answers belongs in `metrics`.
"""

from collections.abc import Mapping, Sequence

from calltune.evaluation.ast_match import is_ast_match
from calltune.evaluation.exact_match import has_right_names, is_exact_match
from calltune.evaluation.failure_reasons import abstention, reason
from calltune.evaluation.metrics import argument_count, function_count
from calltune.evaluation.records import Judgement
from calltune.schemas.parameters import allows
from calltune.schemas.validate import satisfies
from calltune.types import Answer, ParsedOutput, Tool, ToolCall


def judge(
    parsed: ParsedOutput,
    answers: tuple[Answer, ...],
    tools: Mapping[str, Tool],
    finish: str = "stop",
) -> Judgement:
    """The judgement of one answer.

    Args:
        parsed: What was parsed from the model's text.
        answers: The calls that are right; none where no call is.
        tools: The tools on offer, by name.
        finish: "length" where the token limit ended the text, else "stop".
    """
    calls, is_parsed = parsed.calls, parsed.problem is None
    is_exact = is_exact_match(parsed, answers, tools)
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
        arguments=argument_count(parsed, answers, tools),
        reason=None if is_exact else reason(parsed, answers, tools, finish),
        abstention=abstention(parsed, answers),
    )


def are_valid(calls: Sequence[ToolCall], tools: Mapping[str, Tool]) -> bool:
    """Whether every call is to a tool on offer and its arguments satisfy the tool's JSON Schema.

    An argument that the tool does not declare is not valid, whether the schema forbids it or not.
    A keyword that is no valid JSON Schema is ignored.
    """
    return not invents_function(calls, tools) and all(
        not invented_arguments(call, tools[call.name])
        and satisfies(call.arguments, tools[call.name].parameters)
        for call in calls
    )


def invents_function(calls: Sequence[ToolCall], tools: Mapping[str, Tool]) -> bool:
    """Whether a function is called that is not among `tools`, which are those on offer by name."""
    return any(call.name not in tools for call in calls)


def invented_arguments(call: ToolCall, tool: Tool) -> list[str]:
    """The names of the call's arguments that the tool's schema does not allow."""
    return [name for name in call.arguments if not allows(tool.parameters, name)]

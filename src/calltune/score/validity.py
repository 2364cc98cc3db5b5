"""Whether calls keep to the tools' JSON Schemas, whatever is right to call."""

from collections.abc import Mapping, Sequence

from calltune.calls import Tool, ToolCall
from calltune.sources.parameters import allows
from calltune.validation import satisfies


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

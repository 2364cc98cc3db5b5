"""What a request wants: the functions on offer, what an answer may be, how it is drawn."""

import secrets
from collections.abc import Sequence

from calltune.calls import Json, Message
from calltune.decode.row import Sampling
from calltune.formats.grammar import MOST_CALLS, Wanted
from calltune.formats.json_calls import call_key
from calltune.serve.wire import ChatRequest, NamedChoice, ObjectFormat, SchemaFormat


def offered(request: ChatRequest) -> list[dict[str, Json]]:
    """The functions that may be called."""
    if request.tool_choice == "none":
        return []
    functions = [tool.function for tool in request.tools or ()]
    if isinstance(request.tool_choice, NamedChoice):
        name = request.tool_choice.function.name
        functions = [function for function in functions if function.name == name]
    return [
        {
            "name": function.name,
            "description": function.description or "",
            "parameters": function.parameters or {"type": "object", "properties": {}},
        }
        for function in functions
    ]


def wanted(request: ChatRequest, splits: bool) -> Wanted:
    """What an answer may be where there are tools.

    With `splits` it is calls, or that none is due; what stands in their place is asked for apart.
    """
    is_named = isinstance(request.tool_choice, NamedChoice)
    most = 1 if is_named or request.parallel_tool_calls is False else MOST_CALLS
    if is_named or request.tool_choice == "required":
        return Wanted(least_calls=1, most_calls=most)
    schema = _answer_schema(request)
    if splits:
        return Wanted(most_calls=most)
    return Wanted(most_calls=most, words=schema is None, schema=schema)


def wanted_after(request: ChatRequest) -> Wanted:
    """What it may be without tools: words, or JSON of a schema."""
    schema = _answer_schema(request)
    return Wanted(most_calls=0, words=schema is None, schema=schema)


def made_calls(messages: Sequence[Message]) -> set[str]:
    """The calls that were made since a user spoke last."""
    spoken = max((i for i, each in enumerate(messages) if each.role == "user"), default=-1)
    return {call_key(call) for message in messages[spoken + 1 :] for call in message.calls}


def _answer_schema(request: ChatRequest) -> Json:
    match request.response_format:
        case SchemaFormat(json_schema=named):
            return named.schema_
        case ObjectFormat():
            return {"type": "object"}
    return None


def is_strict(request: ChatRequest) -> bool:
    """Whether a schema is refused that answers cannot be held to in all it says."""
    functions = [tool.function for tool in request.tools or ()]
    named = request.response_format
    if isinstance(named, SchemaFormat) and named.json_schema.strict:
        return True
    return any(function.strict for function in functions)


def samplings(request: ChatRequest, count: int) -> list[Sampling | None]:
    """How each answer is drawn: the first as the seed says, the others beside it."""
    if not request.temperature:
        return [None] * count
    seed = secrets.randbits(62) if request.seed is None else request.seed & (2**62 - 1)
    top_p = 1.0 if request.top_p is None else request.top_p
    return [Sampling(request.temperature, top_p, seed + index) for index in range(count)]

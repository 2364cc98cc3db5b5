"""How much one request may hold, and how much may be asked at once."""

from dataclasses import dataclass

from calltune.files import dumps
from calltune.serving.errors import Fault
from calltune.serving.request_schema import ChatRequest, SchemaFormat
from calltune.types import Json

MAX_SCHEMA_DEPTH = 48
CHARACTERS_PER_TOKEN = 16
"""No text has so many on average; one that would is not cut into tokens, which takes long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a server; beyond one of them a request is refused with the status named."""

    body_bytes: int = 2 << 20
    """413."""
    body_seconds: float = 30.0
    """A body must have come whole after so long: 408."""
    messages: int = 512
    """400."""
    tools: int = 128
    """400."""
    schema_bytes: int = 64 << 10
    """Of all tools, or of `response_format`, as JSON: 422."""
    context_tokens: int = 8192
    """Prompt and answer together: 400 where the prompt alone fills it."""
    answer_tokens: int = 1024
    """Longer answers are cut, with the finish reason `length`."""
    queue: int = 64
    """Answers that may wait, beside those that run: 429."""
    seconds: float = 300.0
    """An answer must be there after so long: 503, or the end of the stream."""


def check_sizes(request: ChatRequest, limits: Limits) -> None:
    """See that a request is not larger than it may be.

    Raises:
        Fault: it is.
    """
    if len(request.messages) > limits.messages:
        raise Fault(
            400,
            f"{len(request.messages)} messages; up to {limits.messages} are taken",
            "messages",
        )
    tools = request.tools or ()
    if len(tools) > limits.tools:
        raise Fault(400, f"{len(tools)} tools; up to {limits.tools} are taken", "tools")
    _check_schemas([tool.function.parameters for tool in tools], "tools", limits)
    if isinstance(request.response_format, SchemaFormat):
        schema = request.response_format.json_schema.schema_
        _check_schemas([schema], "response_format", limits)


def _check_schemas(schemas: Json, param: str, limits: Limits) -> None:
    n_bytes = len(dumps(schemas))
    if n_bytes > limits.schema_bytes:
        raise Fault(
            422,
            f"The schemas take {n_bytes} bytes; up to {limits.schema_bytes} are taken",
            param,
            "schema_too_large",
        )
    if _depth(schemas) > MAX_SCHEMA_DEPTH:
        raise Fault(
            422,
            f"A schema nests more than {MAX_SCHEMA_DEPTH} deep; make it flatter",
            param,
            "schema_too_deep",
        )


def _depth(value: Json) -> int:
    deepest, open_values = 0, [(value, 1)]
    while open_values:
        item, depth = open_values.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, depth)
            parts = item.values() if isinstance(item, dict) else item
            open_values.extend((part, depth + 1) for part in parts)
    return deepest

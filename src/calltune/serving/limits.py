"""Limits on the size of a request, and on how many answers run or wait at once."""

from dataclasses import dataclass

from calltune.files import dumps
from calltune.serving.errors import APIError
from calltune.serving.request_schema import ChatRequest, SchemaFormat
from calltune.types import Json

MAX_SCHEMA_DEPTH = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a server; a request beyond one of them is refused with the status named."""

    body_bytes: int = 2 << 20
    """Status 413."""
    body_seconds: float = 30.0
    """Time in which the whole body must arrive: status 408."""
    messages: int = 2048
    """Status 400."""
    tools: int = 1024
    """Status 400."""
    schema_bytes: int = 1 << 20
    """JSON of all tools' parameters, or of `response_format`: status 422."""
    context_tokens: int = 8192
    """Prompt and answer together: status 400 if the prompt alone fills it."""
    answer_tokens: int = 1024
    """Longer answers are truncated, with the finish reason `length`."""
    queue: int = 64
    """Answers that may wait, besides those that run: status 429."""
    seconds: float = 300.0
    """Time in which an answer must be complete: status 503, or the end of the stream."""


def check_sizes(request: ChatRequest, limits: Limits) -> None:
    """Check the number of messages and tools, and the size and depth of schemas.

    Raises:
        APIError: one of them is beyond its limit.
    """
    if len(request.messages) > limits.messages:
        raise APIError(
            400,
            f"{len(request.messages)} messages; the limit is {limits.messages}",
            "messages",
        )
    field = "functions" if request.is_older_spelling else "tools"
    if len(request.offers) > limits.tools:
        raise APIError(400, f"{len(request.offers)} {field}; the limit is {limits.tools}", field)
    _check_schemas([function.parameters for function in request.offers], field, limits)
    if isinstance(request.response_format, SchemaFormat):
        schema = request.response_format.json_schema.schema_
        _check_schemas([schema], "response_format", limits)


def _check_schemas(schemas: Json, param: str, limits: Limits) -> None:
    n_bytes = len(dumps(schemas))
    if n_bytes > limits.schema_bytes:
        raise APIError(
            422,
            f"The schemas take {n_bytes} bytes; --max-schema-bytes is {limits.schema_bytes}",
            param,
            "schema_too_large",
        )
    if _depth(schemas) > MAX_SCHEMA_DEPTH:
        raise APIError(
            422,
            f"A schema is nested more than {MAX_SCHEMA_DEPTH} levels deep; make it flatter",
            param,
            "schema_too_deep",
        )


def _depth(value: Json) -> int:
    """How deep lists and objects are nested; without recursion, whose depth is limited."""
    deepest, open_values = 0, [(value, 1)]
    while open_values:
        item, depth = open_values.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, depth)
            parts = item.values() if isinstance(item, dict) else item
            open_values.extend((part, depth + 1) for part in parts)
    return deepest

"""Reads the body of a request: bytes, then JSON, then a checked model; errors name the field."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from calltune.schemas.tools import UnusableRow, check_json
from calltune.serving.errors import APIError
from calltune.serving.request_schema import ChatRequest
from calltune.serving.request_spellings import standard_request
from calltune.types import Json

T = TypeVar("T", bound=BaseModel)


async def receive_body(request: Request, max_bytes: int, seconds: float) -> bytes:
    """The whole body.

    Raises:
        APIError: it is too large (413), or did not arrive in time (408).
    """
    parts: list[bytes] = []
    n_bytes = 0
    try:
        async with asyncio.timeout(seconds), aclosing(request.stream()) as stream:
            async for part in stream:
                n_bytes += len(part)
                if n_bytes > max_bytes:
                    raise APIError(413, f"The body is larger than {max_bytes} bytes")
                parts.append(part)
    except TimeoutError:
        raise APIError(408, f"The body did not arrive within {seconds:g} seconds") from None
    return b"".join(parts)


def decode_body(body: bytes) -> dict[str, Json]:
    """The JSON object in a body.

    Raises:
        APIError: it is none (400).
    """
    try:
        data = check_json(json.loads(body, parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as error:
        raise APIError(400, f"The body is not JSON ({error!s:.200})") from None
    except UnusableRow as error:
        raise APIError(400, f"The body cannot be used: {error}") from None
    if not isinstance(data, dict):
        raise APIError(400, "The body is not a JSON object")
    return data


def read_chat_request(data: Mapping[str, Json]) -> ChatRequest:
    """A chat request in any of its spellings.

    Raises:
        APIError: a field cannot be used (400).
    """
    return checked(ChatRequest, standard_request(data))


def checked(model: type[T], data: Mapping[str, Json]) -> T:
    """`data` as a model.

    Raises:
        APIError: a field cannot be used; it is named as in `messages[0].content` (400).
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults: list[Any] = error.errors(include_url=False)
    # Of a union's alternatives, the one that fitted furthest: the right type above all.
    fault = max(
        faults, key=lambda each: (len(_field(each, data)), not each["type"].endswith("_type"))
    )
    field = _field(fault, data) or None
    raise APIError(400, f"{field or 'The request'}: {_reason(fault)}", field)


def _reason(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "union_tag_invalid":
        context = fault["ctx"]
        return f"{context['tag']!r:.80} is none of {context['expected_tags']}"
    return str(fault["msg"])


def _field(fault: Mapping[str, Any], data: Json) -> str:
    """The field at fault; pydantic's path holds the names of alternatives as well."""
    name, value = "", data
    for index, part in enumerate(fault["loc"]):
        is_last = index == len(fault["loc"]) - 1
        if isinstance(value, list) and isinstance(part, int):
            name, value = f"{name}[{part}]", value[part]
        elif isinstance(value, dict) and part in value:
            name, value = f"{name}.{part}", value[part]
        elif is_last and fault["type"] == "missing":
            name = f"{name}.{part}"
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        name = f"{name}.{fault['ctx']['discriminator'].strip(chr(39))}"
    return name.removeprefix(".")


def _refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's parser accepts."""
    raise ValueError(f"{name} is not JSON")

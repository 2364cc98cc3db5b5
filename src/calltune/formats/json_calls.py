"""Calls as JSON, as several families write them: parsed strictly, refused with a reason."""

import json
from typing import NamedTuple, NoReturn

from calltune.calls import Json, ToolCall


class Unreadable(Exception):
    """A text holds no calls that can be read; the message is the reading's problem."""


class Decoded(NamedTuple):
    """A JSON value and where in the text it ended."""

    value: Json
    end: int


def decode(text: str, start: int) -> Decoded:
    """The JSON value that begins at `start`.

    Raises:
        Unreadable: not JSON, a key twice in one object, NaN or Infinity, or nested too deep.
    """
    try:
        return Decoded(*_DECODER.raw_decode(text, start))
    except json.JSONDecodeError as error:
        raise Unreadable(f"not JSON at {error.pos}: {error.msg}") from None
    except RecursionError:
        raise Unreadable("JSON nested too deep") from None


def call_from_json(data: Json) -> ToolCall:
    """The call in `{"name", "arguments"}` or in `{"type": "function", "function": {…}}`.

    Arguments may be an object or an object written as a string, as in OpenAI's API.

    Raises:
        Unreadable: no name, or arguments that are not an object.
    """
    if isinstance(data, dict) and isinstance(data.get("function"), dict):
        data = data["function"]
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise Unreadable("a call without a name")
    arguments = data.get("arguments")
    if isinstance(arguments, str):
        arguments = _decode_whole(arguments)
    if not isinstance(arguments, dict):
        raise Unreadable(f"arguments of {data['name']} are not an object")
    return ToolCall(data["name"], arguments)


def _decode_whole(text: str) -> Json:
    start = len(text) - len(text.lstrip())
    decoded = decode(text, start)
    if text[decoded.end :].strip():
        raise Unreadable("text after the arguments")
    return decoded.value


def _object_without_twins(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        raise Unreadable("a key twice in one object")
    return keys


def _refuse_constant(name: str) -> NoReturn:
    raise Unreadable(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_without_twins, parse_constant=_refuse_constant
)

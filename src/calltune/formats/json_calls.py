"""Calls as JSON, as several families write them: parsed strictly, refused with a reason."""

import json
from math import isfinite
from typing import NoReturn

from calltune.calls import Json, ToolCall
from calltune.formats.pieces import Brackets, Pieces, Steps, Unreadable


def next_call(text: Pieces) -> Steps[ToolCall]:
    """The call whose JSON object begins here.

    Raises:
        Unreadable: none begins here, or it is not a call.
    """
    if (yield from text.letter()) != "{":
        raise Unreadable(f"no JSON object at {text.position}")
    return call_from_json((yield from next_value(text)))


def next_value(text: Pieces) -> Steps[Json]:
    """The JSON list or object that begins here.

    Raises:
        Unreadable: as `decode`, or it is nested too deep.
    """
    start = text.position
    return decode((yield from text.json_text()), start)


def decode(text: str, start: int = 0) -> Json:
    """The JSON value that `text` holds; `start` is where in the whole text it began.

    Raises:
        Unreadable: not JSON, a key twice in one object, NaN, Infinity or a number too large.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise Unreadable(f"not JSON at {start + error.pos}: {error.msg}") from None
    except ValueError:
        # Python gives up on a whole number of more than 4,300 digits.
        raise Unreadable("a number too large") from None


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
    if isinstance(arguments, str) and arguments.lstrip().startswith("{"):
        arguments = _object_in(arguments.strip())
    if not isinstance(arguments, dict):
        raise Unreadable(f"arguments of {data['name']} are not an object")
    return ToolCall(data["name"], arguments)


def call_key(call: ToolCall) -> str:
    """The same text for calls that are the same as JSON, whatever the order of their keys."""
    return json.dumps([call.name, call.arguments], sort_keys=True)


def _object_in(text: str) -> Json:
    end = Brackets().closed_at(text, 0)
    decoded = decode(text[:end])
    if text[end:].strip():
        raise Unreadable("text after the arguments")
    return decoded


def _object_without_twins(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        raise Unreadable("a key twice in one object")
    return keys


def _refuse_constant(name: str) -> NoReturn:
    raise Unreadable(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise Unreadable("a number too large")
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_without_twins,
    parse_constant=_refuse_constant,
    parse_float=_finite,
)

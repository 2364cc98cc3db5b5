"""The values that each keyword of JSON Schema may have, and what is read into others.

Source: the meta-schemas of JSON Schema draft 2020-12, https://json-schema.org/draft/2020-12/schema.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Final

from calltune.schemas.keywords import HOLD_LIST, HOLD_MAP, HOLD_ONE
from calltune.schemas.pattern import can_translate
from calltune.types import Json

NO_VALUE: Final = object()
"""Stands for the value of a keyword that cannot be read."""
TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")
_NUMBER_IN_TEXT = re.compile(r"\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\s*")
_COUNTS = (
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("minContains", "maxContains"),
)
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_TRUTHS = ("uniqueItems", "deprecated", "readOnly", "writeOnly")
_TEXTS = (
    *("$ref", "$comment", "title", "description", "format", "pattern"),
    *("contentEncoding", "contentMediaType"),
)


def read_truth(value: Json) -> bool | None:
    """The boolean that a value is or spells, such as `"true"`; None if it is none."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return {"true": True, "false": False, "yes": True, "no": False}.get(value.strip().lower())
    return bool(value) if isinstance(value, int) and value in (0, 1) else None


def read_number(value: Json) -> int | float | None:
    """The finite number that a value is or spells, such as `"5"`; None if it is none."""
    if isinstance(value, str) and len(value) < 400 and _NUMBER_IN_TEXT.fullmatch(value):
        number = float(value)
        return int(value) if value.strip().lstrip("+-").isdecimal() else number
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def type_of(value: Json) -> str:
    """JSON Schema's name for the type of a value; `integer` for whole numbers."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    names = {str: "string", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")


def read_names(value: Json) -> Json:
    """The list of names in JSON text such as `["a"]`; what is none stays as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def read_keyword(keyword: str, value: Json) -> Json:
    """The value of a keyword as draft 2020-12 wants it, numbers and truths taken out of quotes.

    Schemas in it are not looked at, nor are keywords that are not known; `type` is read elsewhere.

    Returns:
        `NO_VALUE` where the value means nothing under this keyword.
    """
    read = _READERS.get(keyword)
    return value if read is None else read(value)


def _count(value: Json) -> Json:
    number = read_number(value)
    return NO_VALUE if number is None or number < 0 or number != int(number) else number


def _bound(value: Json) -> Json:
    number = read_number(value)
    return NO_VALUE if number is None else number


def _multiple(value: Json) -> Json:
    number = read_number(value)
    return NO_VALUE if number is None or number <= 0 else number


def _truth(value: Json) -> Json:
    truth = read_truth(value)
    return NO_VALUE if truth is None else truth


def _text(value: Json) -> Json:
    return value if isinstance(value, str) else NO_VALUE


def _pattern(value: Json) -> Json:
    return value if isinstance(value, str) and can_compile(value) else NO_VALUE


def can_compile(pattern: str) -> bool:
    """Whether a pattern is one in ECMAScript's syntax, as far as it can be told."""
    import regex

    try:
        regex.compile(to_python(pattern))
    except (regex.error, RecursionError, OverflowError, ValueError):
        # Such as \cA, which a grammar can hold though nothing checks it.
        return can_translate(pattern)
    return True


def to_python(pattern: str) -> str:
    """A pattern of ECMAScript's as the library `regex` writes it."""
    # A named group, but neither of the two that look behind.
    return re.sub(r"(?<!\\)\(\?<(?![=!])", "(?P<", pattern)


def _names(value: Json) -> Json:
    value = read_names(value)
    if not isinstance(value, list):
        return NO_VALUE
    return list(dict.fromkeys(name for name in value if isinstance(name, str)))


def _values(value: Json) -> Json:
    return value if isinstance(value, list) and value else NO_VALUE


def _examples(value: Json) -> Json:
    return value if isinstance(value, list) else [value]


def _schema(value: Json) -> Json:
    if isinstance(value, str) and (truth := read_truth(value)) is not None:
        return truth
    return value if isinstance(value, dict | bool | str) else NO_VALUE


def _schemas(value: Json) -> Json:
    return value if isinstance(value, list) and value else NO_VALUE


def _map(value: Json) -> Json:
    return value if isinstance(value, dict) else NO_VALUE


def _dependent(value: Json) -> Json:
    if not isinstance(value, dict):
        return NO_VALUE
    named = {name: _names(names) for name, names in value.items()}
    return NO_VALUE if NO_VALUE in named.values() else named


_READERS: dict[str, Callable[[Json], Json]] = {
    **dict.fromkeys(_COUNTS, _count),
    **dict.fromkeys(_BOUNDS, _bound),
    **dict.fromkeys(_TRUTHS, _truth),
    **dict.fromkeys(_TEXTS, _text),
    **dict.fromkeys(HOLD_ONE, _schema),
    **dict.fromkeys(HOLD_LIST, _schemas),
    **dict.fromkeys(HOLD_MAP, _map),
    "multipleOf": _multiple,
    "pattern": _pattern,
    "required": _names,
    "dependentRequired": _dependent,
    "enum": _values,
    "examples": _examples,
}

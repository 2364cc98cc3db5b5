"""JSON Schemas: whether a value satisfies one, and what a reference within one points at.

A tool's parameters made a JSON Schema that its reference implementation accepts.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote

from calltune.schemas.parameters import ParsedSchema
from calltune.types import Json


def satisfies(value: Json, schema: dict[str, Json]) -> bool:
    """Whether it does, by the reference implementation of draft 2020-12 in Python.

    What a broken schema says is not held against anybody.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import UnknownType
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    broken = (
        UnknownType,
        Unresolvable,
        re.error,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    )
    # An empty registry: a reference to some address is never fetched.
    validator = Draft202012Validator(schema, registry=Registry())
    try:
        return bool(validator.is_valid(value))
    except broken:
        return True


def resolve_pointer(reference: str, root: Json) -> Json:
    """What a reference within `root` (`#/a/b`, RFC 6901) points at; None where it points out."""
    if not reference.startswith("#"):
        return None
    found = root
    for token in reference[1:].split("/")[1:]:
        key = unquote(token).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            return None
    return found


_DATA = ("const", "default", "enum", "examples")
"""Keywords whose values are no schemas."""
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose values have names for keys, which may be those of keywords."""
_NO_OBJECTS = {"string", "number", "integer", "boolean", "null", "array"}


class _Mended(NamedTuple):
    schema: dict[str, Json]
    note: str


def repair_schema(written: dict[str, Json]) -> ParsedSchema:
    """`written` as an object's schema by draft 2020-12, and what had to be left open in it.

    A reference that leads nowhere, or out of the schema, allows any value; so does an argument
    whose schema is none. Other keywords that are broken are left out.
    """
    notes: dict[str, None] = {}
    given = {key: value for key, value in written.items() if key != "$schema"}
    kept = _without_loose_ends(given, given, lambda text: notes.update({text: None}))
    if _is_of_no_object(kept.get("type")):
        notes["parameters are of another type than object; that is passed over"] = None
    schema: dict[str, Json] = {"properties": {}, "required": []} | kept | {"type": "object"}
    while (path := _fault(schema)) is not None:
        schema, note = _mended(schema, path)
        notes[note] = None
    return ParsedSchema({"type": "object"} | schema, tuple(notes))


def _is_of_no_object(kind: Json) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    return bool(kinds) and all(isinstance(each, str) and each in _NO_OBJECTS for each in kinds)


def _without_loose_ends(value: Json, root: Json, note: Callable[[str], None]) -> Json:
    if isinstance(value, list):
        return [_without_loose_ends(item, root, note) for item in value]
    if not isinstance(value, dict):
        return value
    reference = value.get("$ref")
    if isinstance(reference, str) and resolve_pointer(reference, root) is None:
        note(f"reference {reference} leads nowhere; any value is allowed")
        value = {key: item for key, item in value.items() if key != "$ref"}
    return {key: _part_without(key, item, root, note) for key, item in value.items()}


def _part_without(key: str, value: Json, root: Json, note: Callable[[str], None]) -> Json:
    if key in _MAPS and isinstance(value, dict):
        return {name: _without_loose_ends(item, root, note) for name, item in value.items()}
    return value if key in _DATA else _without_loose_ends(value, root, note)


def _fault(schema: dict[str, Json]) -> list[Any] | None:
    """Where in the schema the first fault lies."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return list(error.absolute_path)
    return None


def _mended(schema: dict[str, Json], path: list[Any]) -> _Mended:
    if not path:
        return _Mended({}, "parameters are no JSON Schema; any arguments are allowed")
    keyword = path[0]
    if len(path) > 1 and keyword in ("properties", "$defs", "definitions"):
        part = schema[keyword] | {path[1]: {}}
        return _Mended(
            schema | {keyword: part}, f"{path[1]} has no JSON Schema; any value is allowed"
        )
    rest = {key: value for key, value in schema.items() if key != keyword}
    return _Mended(rest, f"{keyword} is no JSON Schema and is left out")

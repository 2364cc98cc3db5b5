"""Checks against JSON Schema: values against schemas, and schemas against draft 2020-12.

Source: JSON Schema draft 2020-12, by its reference implementation in Python, `jsonschema`; pointers
are RFC 6901.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote

from calltune.schemas.keywords import map_all_objects
from calltune.schemas.parameters import ParsedSchema
from calltune.types import Json

_NO_OBJECTS = {"string", "number", "integer", "boolean", "null", "array"}


def satisfies(value: Json, schema: dict[str, Json]) -> bool:
    """Whether a value satisfies a JSON Schema of draft 2020-12.

    Also true where the schema is broken in a way that stops the check: a value is not blamed for
    its schema. References to other documents are never fetched.
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
    """What a reference within a document points at, such as `#/$defs/a` (RFC 6901).

    None where the reference leads to nothing, or out of the document. `referencing` does the same
    for sound documents; in broken ones it indexes into strings and raises what Python raises.
    """
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


class _Repaired(NamedTuple):
    schema: dict[str, Json]
    note: str


def repair_schema(written: dict[str, Json]) -> ParsedSchema:
    """A tool's parameters as an object's schema that draft 2020-12 accepts, and what was lost.

    A reference that leads nowhere, or out of the schema, allows any value; so does an argument
    whose schema is invalid. Other invalid keywords are left out.
    """
    notes: dict[str, None] = {}
    given = {key: value for key, value in written.items() if key != "$schema"}
    kept = _without_dangling_references(given, given, lambda text: notes.update({text: None}))
    if _is_not_an_object(kept.get("type")):
        notes["parameters have another type than object, which is ignored"] = None
    schema: dict[str, Json] = {"properties": {}, "required": []} | kept | {"type": "object"}
    while (path := _first_fault(schema)) is not None:
        schema, note = _repair_at(schema, path)
        notes[note] = None
    return ParsedSchema({"type": "object"} | schema, tuple(notes))


def _is_not_an_object(kind: Json) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    return bool(kinds) and all(isinstance(each, str) and each in _NO_OBJECTS for each in kinds)


def _without_dangling_references(value: Json, root: Json, note: Callable[[str], None]) -> Json:
    if not isinstance(value, dict):
        return value
    reference = value.get("$ref")
    if isinstance(reference, str) and resolve_pointer(reference, root) is None:
        note(f"reference {reference} leads nowhere; any value is allowed")
        value = {key: item for key, item in value.items() if key != "$ref"}
    return map_all_objects(value, lambda part: _without_dangling_references(part, root, note))


def _first_fault(schema: dict[str, Json]) -> list[Any] | None:
    """The path to the first fault in the schema; None where draft 2020-12 accepts it."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return list(error.absolute_path)
    return None


def _repair_at(schema: dict[str, Json], path: list[Any]) -> _Repaired:
    if not path:
        return _Repaired({}, "parameters are not a JSON Schema; any arguments are allowed")
    keyword = path[0]
    if len(path) > 1 and keyword in ("properties", "$defs", "definitions"):
        part = schema[keyword] | {path[1]: {}}
        return _Repaired(
            schema | {keyword: part}, f"{path[1]} has no valid JSON Schema; any value is allowed"
        )
    rest = {key: value for key, value in schema.items() if key != keyword}
    return _Repaired(rest, f"{keyword} is not valid JSON Schema and is left out")

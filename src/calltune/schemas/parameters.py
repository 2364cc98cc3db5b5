"""A tool's parameters, in whatever form its dataset writes them, as one JSON Schema object.

Two forms are read: a JSON Schema object (OpenAI's function tools, BFCL, MCP), with Python's names
of types where JSON Schema has its own, and the flat form of xlam-function-calling-60k,
`{argument: {"type": "str, optional", "description": …, "default": …}}`.
"""

from typing import NamedTuple

from calltune.schemas.keywords import map_subschemas
from calltune.schemas.python_types import any_of, read_type
from calltune.types import Json

MAX_SCHEMA_DEPTH = 64
"""Schemas nested deeper than this allow any value, with a note."""
_NORMALIZED = frozenset(
    {
        *("properties", "items", "additionalProperties", "not"),
        *("anyOf", "oneOf", "allOf", "prefixItems"),
    }
)
"""Where datasets write Python's names of types; under other keywords schemas stay as they are."""
_OF_A_SCHEMA = frozenset(
    {"type", "properties", "required", "description", "title", "$schema", "$defs"}
)
"""An object with other keys is taken for the flat form."""


class ParsedSchema(NamedTuple):
    """A tool's parameters as one JSON Schema object, and what was not understood in them."""

    schema: dict[str, Json]
    notes: tuple[str, ...]


def read_parameters(written: dict[str, Json]) -> ParsedSchema:
    """The JSON Schema of a tool's arguments, with what was not understood noted.

    Args:
        written: a JSON Schema object, or the flat form `{argument: {type, description, default}}`.
            In the flat form an argument is optional when its type says so or when it has a
            default; in a JSON Schema `required` decides.

    Returns:
        A schema with `type`, `properties` and `required`; a type that is not understood allows any
        value. `written` is not changed.
    """
    notes: dict[str, None] = {}
    if _is_schema(written):
        schema = _object(written, notes, 0)
        schema["type"] = "object"
        schema.setdefault("properties", {})
        schema.setdefault("required", [])
    else:
        schema = _flat(written, notes)
    return ParsedSchema(schema, tuple(notes))


def allows(schema: dict[str, Json], argument: str) -> bool:
    """Whether a tool with these parameters takes an argument of this name.

    Also true where that depends on a reference, on alternatives or on patterns.
    """
    if argument in schema["properties"] or schema.get("additionalProperties", False) is not False:
        return True
    elsewhere = ("$ref", "anyOf", "oneOf", "allOf", "patternProperties")
    return any(keyword in schema for keyword in elsewhere)


def _is_schema(written: dict[str, Json]) -> bool:
    # An argument may be called "type" or "properties": then its value describes an argument.
    if isinstance(kind := written.get("type"), str):
        return kind.lower() in ("object", "dict")
    properties = written.get("properties")
    if not isinstance(properties, dict) or not written.keys() <= _OF_A_SCHEMA:
        return False
    return "required" in written or not isinstance(properties.get("type"), str)


def _flat(written: dict[str, Json], notes: dict[str, None]) -> dict[str, Json]:
    properties: dict[str, Json] = {}
    required: list[str] = []
    for name, parameter in written.items():
        described = {"type": parameter} if isinstance(parameter, str) else parameter
        properties[name] = _schema(described, notes, 1)
        if not _may_be_left_out(described):
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}


def _may_be_left_out(parameter: Json) -> bool:
    if not isinstance(parameter, dict):
        return False
    if isinstance(says := parameter.get("required"), bool):
        return not says
    if "default" in parameter or parameter.get("optional") is True:
        return True
    kind = parameter.get("type")
    return isinstance(kind, str) and read_type(kind).is_optional


def _schema(written: Json, notes: dict[str, None], depth: int) -> dict[str, Json]:
    """One value's schema, with every type in it normalised."""
    if isinstance(written, bool):
        return {} if written else {"not": {}}
    if isinstance(written, str):
        written = {"type": written}
    if depth > MAX_SCHEMA_DEPTH:
        notes["schema nested too deeply"] = None
        return {}
    if not isinstance(written, dict):
        notes[f"schema not understood: {str(written)[:60]}"] = None
        return {}
    return _object(written, notes, depth)


def _object(written: dict[str, Json], notes: dict[str, None], depth: int) -> dict[str, Json]:
    schema = _kind(written["type"], notes) if "type" in written else {}
    kept = {key: value for key, value in written.items() if key not in ("type", "optional")}
    if "required" in kept and not isinstance(kept["required"], list):
        del kept["required"]
    elif "required" in kept:
        kept["required"] = [name for name in kept["required"] if isinstance(name, str)]
    if not isinstance(kept.get("properties", {}), dict):
        del kept["properties"]
    return schema | map_subschemas(
        kept, lambda each: _schema(each, notes, depth + 1), keywords=_NORMALIZED
    )


def _kind(written: Json, notes: dict[str, None]) -> dict[str, Json]:
    if isinstance(written, list) and all(isinstance(name, str) for name in written):
        return any_of(_kind(name, notes) for name in written)
    if not isinstance(written, str):
        notes[f"type not understood: {str(written)[:60]}"] = None
        return {}
    reading = read_type(written)
    if not reading.is_understood:
        notes[f"type not understood: {written[:60]}"] = None
    return dict(reading.schema)

"""JSON Schema's keywords: which hold other schemas, one walk over these, and one rewrite of them.

Every other module asks here where the parts of a schema are. Two descend on their own and say so:
the grammar compiler (`schemas/grammar.py`), which carries a depth and merges as it goes, and
`tools/openapi.py`, which flattens `allOf` alone.

Source: JSON Schema draft 2020-12, https://json-schema.org/draft/2020-12 (core, chapters 8 to 10;
validation, chapter 9), with the older drafts' spellings `definitions` and `additionalItems`.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from calltune.types import Json

Schema = dict[str, Json]
"""A JSON Schema that is an object; `true` and `false` are schemas too, without parts."""

HOLD_ONE = frozenset(
    {
        *("items", "additionalItems", "unevaluatedItems", "contains"),
        *("additionalProperties", "unevaluatedProperties", "propertyNames"),
        *("not", "if", "then", "else", "contentSchema"),
    }
)
"""Keywords whose value is a schema; before draft 2020-12 `items` could be a list of them."""
HOLD_LIST = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
"""Keywords whose value is a list of schemas."""
HOLD_MAP = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
)
"""Keywords whose value is an object of schemas by name; a name may be that of a keyword."""
HOLD_SCHEMAS = HOLD_ONE | HOLD_LIST | HOLD_MAP
HOLD_DATA = frozenset({"const", "default", "enum", "examples"})
"""Keywords whose value is data: what looks like a schema in it is none."""
ANNOTATIONS = frozenset({"title", "description", "default", "examples"})
"""Keywords that describe and do not constrain."""
IDENTIFIERS = frozenset({"$schema", "$id", "$defs", "definitions"})
"""Keywords that constrain nothing where they stand: they name the dialect, or hold definitions."""


class Subschema(NamedTuple):
    """A schema within another one."""

    path: tuple[str | int, ...]
    """Keys and indexes that lead to it; () is the whole schema."""
    schema: Schema


def walk(schema: Json) -> Iterator[Subschema]:
    """The schema itself and all schemas in it that are objects, each before its own parts.

    Unknown keywords, data, and values of the wrong kind are passed over; so is a schema that is
    `true` or `false`. References are not followed.
    """
    waiting: list[tuple[tuple[str | int, ...], Json]] = [((), schema)]
    while waiting:
        path, found = waiting.pop()
        if not isinstance(found, dict):
            continue
        yield Subschema(path, found)
        parts: list[tuple[tuple[str | int, ...], Json]] = []
        for key, value in found.items():
            if isinstance(value, dict) and key in HOLD_MAP:
                parts += [((*path, key, name), part) for name, part in value.items()]
            elif isinstance(value, list) and (key in HOLD_LIST or key == "items"):
                parts += [((*path, key, index), part) for index, part in enumerate(value)]
            elif key in HOLD_ONE:
                parts.append(((*path, key), value))
        waiting += reversed(parts)


def map_subschemas(
    schema: Schema,
    convert: Callable[[Json], Json],
    keywords: Collection[str] = HOLD_SCHEMAS,
) -> Schema:
    """A copy of the schema with `convert` applied to each schema directly in it, in their order.

    `convert` calls this again to go deeper. A boolean under a keyword that holds one schema stays
    as it is (`additionalProperties: false`); elsewhere `convert` gets whatever stands in a schema's
    place. Only what stands under `keywords` is converted.
    """

    def part(key: str, value: Json) -> Json:
        if key not in keywords:
            return value
        if key in HOLD_ONE and not isinstance(value, bool):
            return convert(value)
        if key in HOLD_LIST and isinstance(value, list):
            return [convert(item) for item in value]
        if key in HOLD_MAP and isinstance(value, dict):
            return {name: convert(item) for name, item in value.items()}
        return value

    return {key: part(key, value) for key, value in schema.items()}


def map_all_objects(schema: Schema, convert: Callable[[Json], Json]) -> Schema:
    """As `map_subschemas`, and under unknown keywords too, where references may lead.

    Lists are opened to any depth. `convert` gets what is neither a list nor data.
    """

    def nested(value: Json) -> Json:
        return [nested(item) for item in value] if isinstance(value, list) else convert(value)

    def part(key: str, value: Json) -> Json:
        if key in HOLD_MAP and isinstance(value, dict):
            return {name: nested(item) for name, item in value.items()}
        return value if key in HOLD_DATA else nested(value)

    return {key: part(key, value) for key, value in schema.items()}


def property_schema(schema: Json, name: str) -> Json:
    """The schema of an object's property; {} where the schema does not name it."""
    properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
    return properties.get(name, {}) if isinstance(properties, dict) else {}


def items_schema(schema: Json) -> Json:
    """The schema of an array's items; {} where the schema does not say."""
    return schema.get("items", {}) if isinstance(schema, dict) else {}


def declared_types(schema: Json) -> Sequence[str]:
    """The names of the types that a schema allows, `anyOf` included; none where it does not say."""
    if not isinstance(schema, dict):
        return ()
    if isinstance(schema.get("anyOf"), list):
        parts = [declared_types(part) for part in schema["anyOf"]]
        return [name for part in parts for name in part] if all(parts) else ()
    kinds = schema.get("type", [])
    return kinds if isinstance(kinds, list) else [kinds]

"""JSON Schema's keywords: which of them hold other schemas, and the rewrites that go through these.

Every other module asks here where the parts of a schema are. Some descend on their own and say
why: the grammar compiler (`schemas/grammar.py`), which carries a depth and merges as it goes;
`schemas/repair.py`, which carries the path; the searches for references (`schemas/references.py`,
`schemas/openapi_dialect.py`), in documents that are more than schemas; and `schemas/flatten.py`,
which joins the objects of `allOf` alone.

Source: JSON Schema draft 2020-12, https://json-schema.org/draft/2020-12 (core, chapters 8 to 10;
validation, chapter 9), with the older drafts' spellings `definitions` and `additionalItems`.
"""

from collections.abc import Callable, Collection, Sequence

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
SAY_NOTHING = ANNOTATIONS | {"$comment", "format", "deprecated", "readOnly", "writeOnly"}
"""Keywords that refuse no value."""
IDENTIFIERS = frozenset({"$schema", "$id", "$defs", "definitions"})
"""Keywords that constrain nothing where they stand: they name the dialect, or hold definitions."""


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
    """The names of the types that a schema allows; none where it does not say.

    It says by `type`, or by every part of `anyOf` or `oneOf`, or by a part of `allOf`.
    """
    if not isinstance(schema, dict):
        return ()
    if (kinds := schema.get("type")) is not None:
        return kinds if isinstance(kinds, list) else [kinds]
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list):
            parts = [declared_types(part) for part in schema[keyword]]
            return [name for part in parts for name in part] if all(parts) else ()
    parts = [declared_types(part) for part in schema.get("allOf") or []]
    return next(filter(None, parts), ())

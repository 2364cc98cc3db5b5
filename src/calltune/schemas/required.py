"""Required properties: those that mark themselves, and those that `properties` does not name."""

from calltune.schemas.keyword_values import read_truth
from calltune.schemas.keywords import Schema
from calltune.schemas.references import Path, place
from calltune.schemas.remarks import RemarkList
from calltune.types import Json

_ROOM_FOR_OTHERS = (
    "$ref",
    "allOf",
    "anyOf",
    "oneOf",
    "if",
    "dependentSchemas",
    "patternProperties",
)
"""Keywords that may say what a property is that `properties` does not name."""


def with_marked_required(schema: Schema, parts: Json, remarks: RemarkList, path: Path) -> Schema:
    """With the properties that say themselves that they are required, as draft 3 has them."""
    if not isinstance(parts, dict):
        return schema
    marked = [
        name
        for name, part in parts.items()
        if isinstance(part, dict) and read_truth(part.get("required")) is True
    ]
    required = schema.get("required", [])
    new = [name for name in marked if name not in required]
    if not marked:
        return schema
    first = place((*path, "properties", marked[0]))
    remarks.add("required: true in a property makes it required", first, len(marked))
    return schema | {"required": [*required, *new]}


def with_properties_for_required(schema: Schema, remarks: RemarkList, path: Path) -> Schema:
    """With any value for the required properties that `properties` does not name."""
    properties, rest = schema.get("properties"), schema.get("additionalProperties", True)
    if properties is None and rest is not False:
        return schema
    missing = [name for name in schema.get("required", ()) if name not in (properties or {})]
    if not missing or any(keyword in schema for keyword in _ROOM_FOR_OTHERS):
        return schema
    first = place((*path, "required")) + f": {missing[0]}"
    remarks.add("required names without a property take any value", first, len(missing))
    value = rest if isinstance(rest, dict) else {}
    return schema | {"properties": (properties or {}) | dict.fromkeys(missing, value)}

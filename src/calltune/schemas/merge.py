"""Merging of JSON Schemas: references looked up, and `allOf` made one schema.

It looks at one level at a time, for the grammar compiler: what it merges below is left as `allOf`.
"""

from typing import Any

from calltune.schemas.keywords import ANNOTATIONS, IDENTIFIERS, Schema
from calltune.schemas.references import resolve_pointer
from calltune.types import Json

MAX_ALTERNATIVES = 64
_LARGEST = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_SMALLEST = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}
_IGNORED = {"$ref", "allOf", *ANNOTATIONS, *IDENTIFIERS}


class Unsatisfiable(Exception):
    """No value satisfies the schema."""


class UnsupportedSchema(Exception):
    """A schema that cannot be merged into one; the message says why."""


def resolve(schema: Json, root: Schema) -> Schema:
    """The schema without `$ref` and `allOf` at its top; what they hold is merged into it.

    Raises:
        Unsatisfiable: it is `false`, or its parts contradict each other.
        UnsupportedSchema: a reference leads nowhere or in a circle, or two parts cannot be merged.
    """
    try:
        return _resolve(schema, root)
    except RecursionError:
        raise UnsupportedSchema("$ref in a circle") from None


def _resolve(schema: Json, root: Schema) -> Schema:
    for _ in range(MAX_ALTERNATIVES):
        if schema is False or (isinstance(schema, dict) and schema.get("not") == {}):
            raise Unsatisfiable
        if not isinstance(schema, dict):
            return {}
        parts: list[Json] = []
        if "$ref" in schema:
            parts.append(_target(schema["$ref"], root))
        if isinstance(schema.get("allOf"), list):
            parts.extend(schema["allOf"])
        rest = {k: v for k, v in schema.items() if k not in _IGNORED}
        if not parts:
            return rest
        if len(parts) == 1 and not rest:
            schema = parts[0]
            continue
        for part in parts:
            rest = merge(rest, _resolve(part, root))
        schema = rest
    raise UnsupportedSchema("$ref in a circle")


def merge(one: Schema, other: Schema) -> Schema:
    """The schema of what satisfies both of two resolved schemas.

    Raises:
        Unsatisfiable: nothing does.
        UnsupportedSchema: a keyword that stands in both with different values.
    """
    for listing, rest in ((one, other), (other, one)):
        if "prefixItems" in listing and "items" in rest and "prefixItems" not in rest:
            raise UnsupportedSchema("prefixItems and items in different parts")
    result = _within(one, other)
    for key, value in _within(other, one).items():
        result[key] = _both(key, result[key], value) if key in result else value
    return result


def _within(schema: Schema, other: Schema) -> Schema:
    """The schema, its properties limited by the other's `additionalProperties` where it applies."""
    extra, properties = other.get("additionalProperties", True), schema.get("properties")
    if extra in (True, {}) or not isinstance(properties, dict):
        return dict(schema)
    if "patternProperties" in other:
        raise UnsupportedSchema("additionalProperties beside patternProperties, in a part")
    named: Any = other.get("properties") or {}
    limited = {k: v if k in named else {"allOf": [v, extra]} for k, v in properties.items()}
    return schema | {"properties": limited}


def _both(key: str, one: Any, other: Any) -> Any:
    if one == other:
        return one
    if key in _LARGEST | _SMALLEST:
        return max(one, other) if key in _LARGEST else min(one, other)
    if key == "required":
        return [*one, *(name for name in other if name not in one)]
    if key == "properties":
        shared = {k: {"allOf": [one[k], other[k]]} for k in one if k in other}
        return one | other | shared
    if key == "type":
        return _shared_types(one, other)
    if key == "enum":
        return [value for value in one if value in other]
    if key in ("items", "additionalProperties"):
        return {"allOf": [one, other]}
    if key in ("anyOf", "oneOf") and len(one) * len(other) <= MAX_ALTERNATIVES:
        return [{"allOf": [a, b]} for a in one for b in other]
    raise UnsupportedSchema(f"{key} twice")


def _shared_types(one: Any, other: Any) -> list[str]:
    these, those = (kind if isinstance(kind, list) else [kind] for kind in (one, other))
    shared = [kind for kind in these if kind in those]
    numbers = {"integer", "number"}
    if "integer" not in shared and numbers <= {*these, *those}:
        shared.append("integer")
    if not shared:
        raise Unsatisfiable
    return shared


def _target(reference: Json, root: Schema) -> Json:
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise UnsupportedSchema("$ref to another document")
    found = resolve_pointer(reference, root)
    if found is None:
        raise UnsupportedSchema("$ref that leads nowhere")
    return found

"""Which schemas exclude each other, and the schema of what another one excludes.

With these `oneOf`, `not`, `if` and the dependent keywords become `anyOf`, which a grammar can hold.

Source: JSON Schema draft 2020-12, core, chapter 10.2.
"""

from collections.abc import Callable, Sequence
from typing import Any

from calltune.schemas.keywords import ANNOTATIONS, IDENTIFIERS, Schema
from calltune.schemas.references import resolve_pointer
from calltune.schemas.validate import satisfies
from calltune.types import Json

EXCLUDED = "none of these values"
"""A keyword of rewritten schemas: the values that a `not` excludes."""
NOT_INTEGER = "no integer"
"""A keyword of rewritten schemas: numbers that are not whole."""
MAX_NEGATED_DEPTH = 8
_ALL_TYPES = ("string", "number", "boolean", "null", "object", "array")
_SAYS_NOTHING = ANNOTATIONS | IDENTIFIERS | {"format", "$comment", "deprecated", "$anchor"}
_OPPOSITE_BOUNDS = {
    "minimum": "exclusiveMaximum",
    "exclusiveMaximum": "minimum",
    "maximum": "exclusiveMinimum",
    "exclusiveMinimum": "maximum",
}
_COUNTS = {
    "minLength": ("string", "maxLength", -1),
    "maxLength": ("string", "minLength", 1),
    "minItems": ("array", "maxItems", -1),
    "maxItems": ("array", "minItems", 1),
}
"""By keyword: the type it speaks of, its opposite, and the step from one limit to the other."""


class Unsatisfiable(Exception):
    """No value satisfies the schema."""


class UnsupportedSchema(Exception):
    """A schema that cannot be made simple; the message says why."""


def possible_types(schema: Schema) -> Sequence[str]:
    """The types that a grammar writes for a resolved schema; guessed where it names none."""
    if "type" in schema:
        return [schema["type"]] if isinstance(schema["type"], str) else list(schema["type"])
    if schema.keys() & {"properties", "required", "additionalProperties", "patternProperties"}:
        return ("object",)
    return ("array",) if schema.keys() & {"items", "prefixItems"} else _ALL_TYPES


def are_disjoint(one: Schema, other: Schema, resolve: Callable[[Json], Schema]) -> bool:
    """Whether no value that a grammar writes satisfies both of two resolved schemas.

    False also where that cannot be told. `resolve` is `Merger.resolve`.
    """
    these, those = (
        {"number" if kind == "integer" else kind for kind in possible_types(each)}
        for each in (one, other)
    )
    if not these & those:
        return True
    for listed, rest in ((one, other), (other, one)):
        values = _values(listed)
        if values is not None:
            return not any(satisfies(value, rest) for value in values)
    n_items = max(one.get("minItems", 0), other.get("minItems", 0))
    if these & those == {"array"} and n_items and not (one | other).keys() & {"prefixItems"}:
        return _are_disjoint_values(one.get("items", True), other.get("items", True), resolve)
    return these & those == {"object"} and _are_disjoint_objects(one, other, resolve)


def negate(schema: Json, root: Json, depth: int = MAX_NEGATED_DEPTH) -> Json:
    """The schema of what does not satisfy a schema; None where there is none that is simple."""
    if isinstance(schema, bool):
        return not schema
    if depth == 0 or not isinstance(schema, dict):
        return None
    alternatives: list[Json] = []
    for keyword, value in schema.items():
        if keyword in _SAYS_NOTHING:
            continue
        found = _negate_keyword(keyword, value, root, depth - 1)
        if found is None:
            return None
        alternatives += [each for each in found if each is not False]
    return {"anyOf": alternatives} if len(alternatives) != 1 else alternatives[0]


def _values(schema: Schema) -> Sequence[Json] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema["enum"] if isinstance(schema.get("enum"), list) else None


def _are_disjoint_objects(one: Schema, other: Schema, resolve: Callable[[Json], Schema]) -> bool:
    """By a property that both have and that is never the same, or that only one may have."""
    for first, second in ((one, other), (other, one)):
        ours, theirs = first.get("properties") or {}, second.get("properties") or {}
        for name in first.get("required") or ():
            if name in theirs and _are_disjoint_values(ours.get(name, True), theirs[name], resolve):
                return True
        if _lacks_required(second, first) and second.get("additionalProperties") is False:
            return True
    return _lacks_required(one, other) and _lacks_required(other, one)


def _lacks_required(schema: Schema, other: Schema) -> bool:
    """Whether objects that a grammar writes for a schema never have all that another requires."""
    known = (schema.get("properties") or {}).keys() | set(schema.get("required") or ())
    is_closed = known and not schema.get(
        "additionalProperties", schema.get("unevaluatedProperties")
    )
    return bool(
        is_closed
        and "patternProperties" not in schema
        and not known.issuperset(other.get("required") or ())
    )


def _are_disjoint_values(one: Json, other: Json, resolve: Callable[[Json], Schema]) -> bool:
    try:
        return are_disjoint(resolve(one), resolve(other), resolve)
    except Unsatisfiable:
        return True
    except UnsupportedSchema:
        return False


def _negate_keyword(keyword: str, value: Any, root: Json, depth: int) -> list[Json] | None:
    """Alternatives that together are what a keyword excludes."""
    match keyword:
        case "$ref":
            target = resolve_pointer(value, root) if isinstance(value, str) else None
            return _all_known([None if target is None else negate(target, root, depth)])
        case "type":
            return _other_types([value] if isinstance(value, str) else list(value))
        case "const" | "enum":
            values = [value] if keyword == "const" else list(value)
            has_parts = any(isinstance(each, list | dict) for each in values)
            return None if has_parts else [{EXCLUDED: values}]
        case "required":
            return [{"type": "object", "properties": {name: False}} for name in value]
        case "properties":
            return _other_properties(value, root, depth)
        case "not":
            return [value]
        case "allOf":
            return _all_known([negate(part, root, depth) for part in value])
        case "anyOf":
            parts = _all_known([negate(part, root, depth) for part in value])
            return None if parts is None else [{"allOf": parts}]
        case "additionalProperties" | "title" if value is True:
            return []
    if keyword in _OPPOSITE_BOUNDS and not isinstance(value, bool):
        return [{"type": "number", _OPPOSITE_BOUNDS[keyword]: value}]
    if keyword in _COUNTS:
        kind, opposite, step = _COUNTS[keyword]
        return [{"type": kind, opposite: value + step}] if value + step >= 0 else []
    return None


def _all_known(parts: list[Json]) -> list[Json] | None:
    return None if any(part is None for part in parts) else parts


def _other_types(kinds: Sequence[str]) -> list[Json]:
    others = [kind for kind in _ALL_TYPES if kind not in kinds]
    found: list[Json] = []
    if "integer" in kinds and "number" in others:
        others.remove("number")
        found.append({"type": "number", NOT_INTEGER: True})
    return [*found, {"type": others}] if others else found


def _other_properties(properties: Schema, root: Json, depth: int) -> list[Json] | None:
    others = {name: negate(part, root, depth) for name, part in properties.items()}
    if any(part is None for part in others.values()):
        return None
    return [
        {"type": "object", "required": [name], "properties": {name: part}}
        for name, part in others.items()
        if part is not False
    ]

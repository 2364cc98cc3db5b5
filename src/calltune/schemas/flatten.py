"""Objects put together: a reference at the root, and the plain objects of `allOf`, as one object.

It recurses on its own: only `allOf` and the root are looked at, and only objects are joined.
"""

import json

from calltune.schemas.keywords import ANNOTATIONS, Schema
from calltune.schemas.references import resolve_pointer
from calltune.types import Json

_OF_AN_OBJECT = frozenset({"type", "properties", "required", "additionalProperties"})
_ABOUT = ANNOTATIONS | {"deprecated"}
_DEFINITIONS = ("$defs", "definitions")


def with_root_inlined(schema: Schema) -> Schema:
    """An object's schema with what a reference or `allOf` at its root says beside the rest.

    Only where both together are one plain object; other schemas stay as they are. Definitions that
    only the root needed are left out.
    """
    parts = [schema, *schema["allOf"]] if isinstance(schema.get("allOf"), list) else [schema]
    used = [part["$ref"] for part in parts if isinstance(part, dict) and "$ref" in part]
    if not used and len(parts) == 1:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("$ref", *_DEFINITIONS)}
    wanted = [_followed(schema["$ref"], schema)] if "$ref" in schema else []
    wanted += [_followed_part(part, schema) for part in schema.get("allOf", ())]
    beside = {key: value for key, value in rest.items() if key != "allOf"}
    if len(wanted) == 1 and _says_nothing(beside) and _may_be_object(wanted[0]):
        joined = beside | wanted[0] | {key: beside[key] for key in beside.keys() & _ABOUT}
    else:
        joined = flattened(beside | {"allOf": wanted})
    if "allOf" in joined or "$ref" in joined:
        return schema
    kept = {key: value for key, value in schema.items() if key in _DEFINITIONS}
    return _without_unused(joined | kept, used)


def flattened(schema: Schema) -> Schema:
    """A plain object made of `allOf` plain objects without a common member, else the schema."""
    parts = schema.get("allOf")
    if not isinstance(parts, list) or schema.keys() - {"allOf"} - _OF_AN_OBJECT - _ABOUT:
        return schema
    if not all(isinstance(part, dict) for part in parts):
        return schema
    about = {key: schema[key] for key in schema if key in _ABOUT}
    own = {key: schema[key] for key in schema if key in _OF_AN_OBJECT}
    objects = [part for part in (*map(flattened, parts), own) if not _says_nothing(part)]
    if len(objects) == 1 and is_plain_object(objects[0]):
        return {**about, "type": "object", "properties": {}, "required": []} | objects[0] | about
    if not all(is_plain_object(part) and _is_open(part) for part in objects):
        return schema
    members = [pair for part in objects for pair in part.get("properties", {}).items()]
    properties = dict(members)
    if len(properties) < len(members):
        return schema
    required = [name for part in objects for name in part.get("required", [])]
    required = list(dict.fromkeys(required))
    return {**about, "type": "object", "properties": properties, "required": required}


def is_plain_object(schema: Schema) -> bool:
    """Whether the schema says nothing but which members an object has."""
    return (
        not schema.keys() - _OF_AN_OBJECT - _ABOUT
        and schema.get("type", "object") == "object"
        and schema.get("additionalProperties") in (None, True, False)
        and isinstance(schema.get("properties", {}), dict)
        and isinstance(schema.get("required", []), list)
    )


def _says_nothing(schema: Schema) -> bool:
    says = {
        key: value for key, value in schema.items() if key not in _ABOUT and value not in ({}, [])
    }
    return says in ({}, {"type": "object"})


def _may_be_object(schema: Json) -> bool:
    kinds = schema.get("type", "object") if isinstance(schema, dict) else []
    return "object" in (kinds if isinstance(kinds, list) else [kinds])


def _is_open(schema: Schema) -> bool:
    return schema.get("additionalProperties", True) is True


def _followed_part(part: Json, root: Schema) -> Json:
    if isinstance(part, dict) and part.keys() - _ABOUT == {"$ref"}:
        return _followed(part["$ref"], root)
    return part


def _followed(reference: str, root: Schema) -> Json:
    """What a reference, or several in a row, lead to; a reference where they go in a circle."""
    seen = {reference}
    found = resolve_pointer(reference, root)
    while isinstance(found, dict) and found.keys() - _ABOUT == {"$ref"}:
        if found["$ref"] in seen:
            break
        seen.add(found["$ref"])
        found = resolve_pointer(found["$ref"], root)
    return found


def _without_unused(schema: Schema, references: list[str]) -> Schema:
    """The schema without the definitions behind `references` that nothing refers to any more."""
    text = json.dumps(schema)
    for reference in references:
        keyword, name = (*reference.split("/"), "", "")[1:3]
        is_used = json.dumps(reference)[:-1] in text
        if keyword in _DEFINITIONS and not is_used and name in schema.get(keyword, {}):
            left = {key: value for key, value in schema[keyword].items() if key != name}
            schema = {key: value for key, value in schema.items() if key != keyword or left}
            schema = schema | ({keyword: left} if left else {})
    return schema

"""Older and neighbouring spellings of JSON Schema, rewritten as draft 2020-12 spells them.

One schema at a time: the schemas in it are left as they are. Read are drafts 3 to 7 and 2019-09,
whatever `$schema` says, and what OpenAPI 3.0, Swagger and Gemini add (`nullable`).

Source: the changes between drafts, https://json-schema.org/specification-links and the migration
chapters there; OpenAPI 3.0, Schema Object; Gemini API, `Schema`.
"""

import re

from calltune.schemas.keyword_values import read_truth
from calltune.schemas.keywords import ANNOTATIONS, IDENTIFIERS, Schema
from calltune.schemas.references import Path, part_at
from calltune.types import Json

NULLABLE = ("nullable", "x-nullable")
"""Keywords of OpenAPI, Swagger and Gemini that allow null beside the type."""
NAMES = frozenset(
    {
        *("$schema", "$id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary"),
        *("$recursiveRef", "$dynamicRef"),
    }
)
"""Keywords that only references by name need; ours are pointers."""
_ABOUT = ANNOTATIONS | {"deprecated", "example", "readOnly", "writeOnly", "$comment"}
_DRAFT = re.compile(r"draft-0?(\d+)|draft/(20\d\d)-\d\d")
_FIRST_WITH_SIBLINGS = 2019
_NARROWING = {"allOf", "anyOf", "oneOf", "$ref", "const", "not", "if"}
"""Keywords that might refuse null although the type allows it."""
_RENAMED = {"divisibleBy": "multipleOf"}


def declared_draft(schema: Json) -> int | None:
    """The draft that a schema declares: 3 to 7, 2019 or 2020; None where it does not say."""
    declared = schema.get("$schema") if isinstance(schema, dict) else None
    found = _DRAFT.search(declared) if isinstance(declared, str) else None
    return int(found[1] or found[2]) if found else None


def ignored_beside_reference(schema: Schema, draft: int | None) -> list[str]:
    """The keywords that the draft ignores because they stand beside `$ref`."""
    if draft is None or draft >= _FIRST_WITH_SIBLINGS or not isinstance(schema.get("$ref"), str):
        return []
    return [key for key in schema if key != "$ref" and key not in _ABOUT | IDENTIFIERS]


def modernized(schema: Schema) -> Schema:
    """The schema with the keywords of older drafts replaced, in their order; not the ones in it."""
    modern: Schema = {}
    for key, value in schema.items():
        for name, item in _spelled(key, value, schema).items():
            if name in modern and name == "allOf":
                item = [*modern["allOf"], *item]
            modern[name] = item
    return modern


def modern_path(path: Path, root: Json) -> Path:
    """Where `modernized` has moved the part at a path."""
    moved: list[str | int] = []
    for depth, key in enumerate(path):
        holder = part_at(root, path[:depth])
        after = path[depth + 1] if depth + 1 < len(path) else None
        is_tuple = isinstance(holder, dict) and isinstance(holder.get("items"), list)
        if key == "items" and is_tuple and isinstance(after, int):
            key = "prefixItems"
        elif key == "additionalItems" and is_tuple:
            key = "items"
        elif key == "dependencies" and isinstance(holder, dict):
            key = "dependentSchemas"
        moved.append(key)
    return tuple(moved)


def _spelled(key: str, value: Json, schema: Schema) -> Schema:
    """The keyword as it is spelled now; none where it says nothing."""
    match key, value:
        case (("exclusiveMinimum" | "exclusiveMaximum"), bool()):
            bound = key.removeprefix("exclusive").lower()
            if not value:
                return {}
            return {key: schema.get(bound, value)}
        case (("minimum" | "maximum"), _) if schema.get(f"exclusive{key.title()}") is True:
            return {}
        case "items", list():
            rest = schema.get("additionalItems")
            fixed = {"prefixItems": value} if value else {}
            return fixed if rest is None else fixed | {"items": rest}
        case "additionalItems", _:
            return {}
        case "dependencies", dict():
            return _dependencies(value)
        case "extends", dict() | list():
            return {"allOf": value if isinstance(value, list) else [value]}
        case "disallow", str() | list():
            return {"not": {"type": value}}
        case "properties", list() if value and all(_is_named(each) for each in value):
            return {"properties": {each["name"]: _nameless(each) for each in value}}
        case _:
            return {_RENAMED.get(key, key): value}


def _dependencies(written: dict[str, Json]) -> Schema:
    names = {k: [v] if isinstance(v, str) else v for k, v in written.items()}
    required = {k: v for k, v in names.items() if isinstance(v, list)}
    schemas = {k: v for k, v in names.items() if isinstance(v, dict | bool)}
    both = {"dependentRequired": required, "dependentSchemas": schemas}
    return {key: value for key, value in both.items() if value}


def _is_named(written: Json) -> bool:
    return isinstance(written, dict) and isinstance(written.get("name"), str)


def _nameless(written: Schema) -> Schema:
    return {key: value for key, value in written.items() if key != "name"}


def is_nullable(schema: Schema) -> bool:
    """Whether a keyword beside the type allows null."""
    return any(read_truth(schema.get(keyword)) is True for keyword in NULLABLE)


def or_null(schema: Schema) -> Schema:
    """The schema that allows null as well; what describes stays outside."""
    kind = schema.get("type")
    kinds = [kind] if isinstance(kind, str) else kind
    if kinds and not schema.keys() & _NARROWING:
        if isinstance(values := schema.get("enum"), list) and None not in values:
            schema = schema | {"enum": [*values, None]}
        return schema | {"type": kinds if "null" in kinds else [*kinds, "null"]}
    about = {key: value for key, value in schema.items() if key in _ABOUT}
    rest = {key: value for key, value in schema.items() if key not in _ABOUT}
    return about | {"anyOf": [rest, {"type": "null"}]} if rest else schema

"""The laws of repair, on valid schemas that are broken or spelled otherwise at one place.

What the sound schema accepts the repaired one accepts, and what breaks a keyword that the fault did
not touch it refuses. Another spelling changes nothing.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
from hypothesis import given
from hypothesis import strategies as st

from calltune.schemas.keywords import HOLD_LIST, HOLD_MAP, HOLD_ONE
from calltune.schemas.repair import repair_any_schema, repair_schema
from calltune.schemas.validate import satisfies

NAMES = st.sampled_from(["a", "b", "type", "items"])
SCALARS = st.none() | st.booleans() | st.integers(-2, 4) | st.sampled_from([0.5, "", "a", "abc"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=4,
)
SMALL = st.integers(0, 3)
TYPE_OF_KEYWORDS = {
    "string": {"minLength": SMALL, "maxLength": SMALL, "pattern": st.sampled_from(["^a", "b"])},
    "integer": {"minimum": SMALL, "exclusiveMaximum": SMALL, "multipleOf": st.just(2)},
    "array": {"minItems": SMALL, "maxItems": SMALL, "uniqueItems": st.just(True)},
    "object": {"minProperties": SMALL, "required": st.lists(NAMES, unique=True, max_size=2)},
}


def typed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas of one type, with some of the keywords for it."""
    kinds = []
    for kind, keywords in TYPE_OF_KEYWORDS.items():
        more: dict[str, st.SearchStrategy[Any]] = dict(keywords)
        if kind == "array":
            more |= {
                "items": inner | st.just(False),
                "prefixItems": st.lists(inner, min_size=1, max_size=2),
                "contains": inner,
                "maxContains": SMALL,
            }
        if kind == "object":
            more |= {
                "properties": st.dictionaries(NAMES, inner, max_size=3),
                "additionalProperties": inner | st.booleans(),
                "patternProperties": st.dictionaries(st.just("^a"), inner, max_size=1),
                "unevaluatedProperties": st.just(False),
            }
        kinds.append(st.fixed_dictionaries({"type": st.just(kind)}, optional=more))
    return st.one_of(kinds)


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            "allOf": several,
            "anyOf": several,
            "oneOf": several,
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
        },
    )


LEAVES = typed(st.just({})) | st.fixed_dictionaries({"enum": st.lists(SCALARS, min_size=1)})
PARTS = st.recursive(LEAVES, lambda inner: typed(inner) | combined(inner), max_leaves=5)


def with_shared(part: Any, shared: Any) -> Any:
    either = {"anyOf": [part, {"$ref": "#/$defs/S"}]}
    excluded = {"properties": {"a": {"not": {"$ref": "#/$defs/S"}}, "b": part}}
    return st.sampled_from([{**each, "$defs": {"S": shared}} for each in (part, either, excluded)])


SCHEMAS = st.tuples(PARTS, PARTS).flatmap(lambda parts: with_shared(*parts))
CONTRARY = {"not", "oneOf", "if", "then", "else", "contains", "unevaluatedProperties"}
"""Keywords that may refuse more where a schema in them refuses less."""
CLOSING = {
    "properties": ("additionalProperties",),
    "patternProperties": ("additionalProperties",),
    "prefixItems": ("items",),
}
MEANINGLESS = st.sampled_from([None, 3.5, -1, "what?", [], [3], {"a": 3}, True])


def objects(schema: Any, is_name: bool = False) -> Iterator[dict[str, Any]]:
    """All schemas in a schema."""
    if not isinstance(schema, dict):
        return
    if not is_name:
        yield schema
    for key, value in list(schema.items()):
        if is_name or key in HOLD_ONE:
            yield from objects(value)
        elif key in HOLD_LIST:
            for each in value:
                yield from objects(each)
        elif key in HOLD_MAP:
            yield from objects(value, is_name=True)


def is_sound(schema: Any) -> bool:
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError:
        return False
    return True


@given(SCHEMAS, VALUES)
def test_a_sound_schema_says_the_same_when_it_is_repaired(schema: Any, value: Any) -> None:
    repaired, remarks = repair_any_schema(schema)
    assert not any(each.is_loss for each in remarks), remarks
    contradicts = any("of another type" in each.kind for each in remarks)
    if satisfies(value, schema) or not contradicts:
        assert satisfies(value, repaired) == satisfies(value, schema)
    assert repair_any_schema(repaired) == (repaired, ())


@given(SCHEMAS, MEANINGLESS, st.lists(VALUES, min_size=1, max_size=4), st.data())
def test_a_fault_costs_its_keyword_and_no_more(
    schema: Any, meaningless: Any, values: list[Any], data: st.DataObject
) -> None:
    broken = copy.deepcopy(schema)
    places = [(each, key) for each in objects(broken) for key in each if key != "$defs"]
    if not places:
        return
    holder, keyword = data.draw(st.sampled_from(places))
    holder[keyword] = meaningless
    if is_sound(broken):
        return
    repaired, remarks = repair_any_schema(broken)
    jsonschema.Draft202012Validator.check_schema(repaired)
    assert remarks
    for gone in (keyword, *CLOSING.get(keyword, ())):
        holder.pop(gone, None)
    is_contrary = any(CONTRARY & each.keys() for each in objects(schema))
    for value in values:
        if satisfies(value, schema):
            assert satisfies(value, repaired)
        if not is_contrary and not satisfies(value, broken):
            assert not satisfies(value, repaired)


def older_bounds(schema: dict[str, Any]) -> None:
    if "exclusiveMaximum" in schema and "maximum" not in schema:
        schema |= {"maximum": schema["exclusiveMaximum"], "exclusiveMaximum": True}


def older_tuples(schema: dict[str, Any]) -> None:
    if "prefixItems" in schema:
        rest = {"additionalItems": schema["items"]} if "items" in schema else {}
        schema |= {"items": schema.pop("prefixItems")} | rest


def required_in_properties(schema: dict[str, Any]) -> None:
    parts = schema.get("properties", {})
    required = schema.get("required", [])
    # A property may have been marked already.
    is_list = isinstance(required, list) and required
    if is_list and all("required" not in parts.get(name, {"required": 1}) for name in required):
        for name in schema.pop("required"):
            parts[name]["required"] = True if name == "a" else "true"


def capitals(schema: dict[str, Any]) -> None:
    if isinstance(schema.get("type"), str):
        schema["type"] = schema["type"].upper()


def names_of_python(schema: dict[str, Any]) -> None:
    names = {"string": "str", "integer": "int", "array": "list", "object": "Dict[str, Any]"}
    if schema.get("type") in names and "additionalProperties" not in schema:
        schema["type"] = names[schema["type"]]


def numbers_in_quotes(schema: dict[str, Any]) -> None:
    for key, value in schema.items():
        if key.startswith(("min", "max", "multiple", "exclusive")) and type(value) is int:
            schema[key] = str(value)


def nulls(schema: dict[str, Any]) -> None:
    for key in ("description", "format", "minimum", "enum", "pattern", "dependentRequired"):
        schema.setdefault(key, None)


def anchors(schema: dict[str, Any]) -> None:
    if schema.get("$ref") == "#/$defs/S":
        schema["$ref"] = "#here"
    if "$defs" in schema:
        schema["$defs"]["S"]["$anchor"] = "here"


def identifiers(schema: dict[str, Any]) -> None:
    if schema.get("$ref") == "#/$defs/S":
        schema["$ref"] = "s.json"
    if "$defs" in schema:
        schema["$id"] = "https://x.test/all.json"
        schema["$defs"]["S"]["$id"] = "https://x.test/s.json#"


SPELLINGS: list[Callable[[dict[str, Any]], None]] = [
    *(older_bounds, older_tuples, required_in_properties, capitals, names_of_python),
    *(numbers_in_quotes, nulls, anchors, identifiers),
]


@given(SCHEMAS, st.sampled_from(SPELLINGS), st.lists(VALUES, min_size=1, max_size=4))
def test_another_spelling_says_the_same(schema: Any, spell: Any, values: list[Any]) -> None:
    spelled = copy.deepcopy(schema)
    for each in list(objects(spelled)):
        spell(each)
    sound = repair_any_schema(schema).schema
    repaired, remarks = repair_any_schema(spelled)
    jsonschema.Draft202012Validator.check_schema(repaired)
    if not any(each.is_loss for each in remarks):
        for value in values:
            assert satisfies(value, repaired) == satisfies(value, sound)
    # Null keywords in what excludes might have said anything.
    assert spell is nulls or not any(each.is_loss for each in remarks)


@given(SCHEMAS)
def test_a_tools_parameters_are_an_object_whatever_is_written(schema: Any) -> None:
    repaired, _ = repair_schema(schema)
    assert list(repaired)[:3] == ["type", "properties", "required"]
    assert repaired["type"] == "object" and isinstance(repaired["required"], list)
    assert repair_schema(repaired) == (repaired, ())

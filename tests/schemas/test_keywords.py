"""Where the parts of a schema are, and what the rewrites leave alone."""

from typing import Any

import pytest

from calltune.schemas.keywords import (
    HOLD_DATA,
    HOLD_LIST,
    HOLD_MAP,
    HOLD_ONE,
    HOLD_SCHEMAS,
    declared_types,
    items_schema,
    map_all_objects,
    map_subschemas,
    property_schema,
)

PART = {"type": "string"}


def marked(part: Any) -> Any:
    return {"seen": part}


@pytest.mark.parametrize("keyword", sorted(HOLD_SCHEMAS))
def test_each_keyword_gives_its_schemas(keyword: str) -> None:
    holding: Any = PART
    expected: Any = {"seen": PART}
    if keyword in HOLD_LIST:
        holding, expected = [PART, True], [{"seen": PART}, {"seen": True}]
    elif keyword in HOLD_MAP:
        # The name of a keyword, and yet a name.
        holding, expected = {"enum": PART}, {"enum": {"seen": PART}}
    assert map_subschemas({keyword: holding}, marked) == {keyword: expected}
    assert map_all_objects({keyword: holding}, marked) == {keyword: expected}
    assert map_subschemas({keyword: holding}, marked, ()) == {keyword: holding}


@pytest.mark.parametrize("keyword", sorted(HOLD_DATA))
def test_data_is_left_alone(keyword: str) -> None:
    schema = {keyword: [{"properties": {"a": PART}}]}
    assert map_subschemas(schema, marked) == map_all_objects(schema, marked) == schema


def test_unknown_keywords_are_gone_through_only_where_references_may_lead() -> None:
    schema = {"x-shared": {"a": PART}}
    assert map_subschemas(schema, marked) == schema
    assert map_all_objects(schema, marked) == {"x-shared": {"seen": {"a": PART}}}


@pytest.mark.parametrize("keyword", sorted(HOLD_ONE))
def test_a_boolean_in_place_of_one_schema_stays(keyword: str) -> None:
    assert map_subschemas({keyword: False}, marked) == {keyword: False}


def test_the_order_of_keywords_stays_and_what_was_given_too() -> None:
    schema: Any = {"items": PART, "type": "array", "anyOf": [PART]}
    assert list(map_subschemas(schema, marked)) == list(schema)
    assert schema == {"items": PART, "type": "array", "anyOf": [PART]}


@pytest.mark.parametrize("schema", [True, None, {}, {"properties": 1}, {"properties": {}}])
def test_where_nothing_is_said_any_value_will_do(schema: Any) -> None:
    assert property_schema(schema, "a") == items_schema(schema) == {}
    assert list(declared_types(schema)) == []


def test_types_are_those_of_all_alternatives() -> None:
    assert list(declared_types({"anyOf": [{"type": "string"}, {"type": ["null"]}]})) == [
        "string",
        "null",
    ]
    assert list(declared_types({"anyOf": [{"type": "string"}, {}]})) == []
    assert list(declared_types({"oneOf": [{"type": "integer"}, {"type": "null"}]})) == [
        "integer",
        "null",
    ]
    assert list(declared_types({"allOf": [{"minimum": 1}, {"type": "integer"}]})) == ["integer"]
    both = {"type": "integer", "anyOf": [{"minimum": 5}, {"maximum": 1}]}
    assert list(declared_types(both)) == ["integer"]

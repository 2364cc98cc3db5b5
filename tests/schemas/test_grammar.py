"""Objects, alternatives and references in grammars: what a schema admits, the grammar admits."""

from typing import Any

import pytest

from calltune.schemas.exclusion import Unsatisfiable
from calltune.types import Json

from support.schema_grammar import grammar_of

QUOTED = pytest.mark.parametrize("is_quoted", [False, True])
CAT = {
    "type": "object",
    "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}},
    "required": ["kind"],
}
DOG = {"type": "object", "properties": {"kind": {"enum": ["dog", "wolf"]}}, "required": ["kind"]}
TWO: dict[str, Json] = {
    "type": "object",
    "properties": {"id": {"type": "integer"}, "name": {"enum": ["x"]}},
}
KIND: dict[str, Json] = {
    "type": "object",
    "properties": {"kind": {"enum": ["id", "name"]}, "id": {"enum": [1]}},
    "required": ["kind"],
}


def obj(**keywords: Json) -> dict[str, Json]:
    return {"type": "object"} | keywords


EXACT: dict[str, tuple[Json, list[Any], list[Any]]] = {
    "tagged oneOf": (
        {"oneOf": [CAT, DOG]},
        [{"kind": "cat", "lives": 9}, {"kind": "wolf"}],
        [{"kind": "cow"}, {"kind": "dog", "lives": 1}, {}],
    ),
    "tagged oneOf by reference": (
        {
            "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
            "$defs": {"cat": CAT, "dog": DOG},
        },
        [{"kind": "cat"}, {"kind": "dog"}],
        [{"kind": 1}],
    ),
    "oneOf of types": ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, ["a", 1], [1.5, None]),
    "oneOf of integer and number": (
        {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        [1.5, 0.25],
        [1, "a"],
    ),
    "oneOf of required": (
        TWO | {"oneOf": [{"required": ["id"]}, {"required": ["name"]}]},
        [{"id": 1}, {"name": "x"}],
        [{}, {"id": 1, "name": "x"}],
    ),
    "anyOf of required": (
        TWO | {"anyOf": [{"required": ["id"]}, {"required": ["name"]}]},
        [{"id": 1}, {"name": "x"}, {"id": 1, "name": "x"}],
        [{}],
    ),
    "not both": (
        TWO | {"not": {"required": ["id", "name"]}},
        [{}, {"id": 1}, {"name": "x"}],
        [{"id": 1, "name": "x"}],
    ),
    "if and then": (
        KIND | {"if": {"properties": {"kind": {"const": "id"}}}, "then": {"required": ["id"]}},
        [{"kind": "name"}, {"kind": "id", "id": 1}, {"kind": "name", "id": 1}],
        [{"kind": "id"}],
    ),
    "two conditions": (
        KIND
        | {
            "allOf": [
                {
                    "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                    "then": {"required": ["id"]} if kind == "id" else True,
                    "else": {"properties": {"id": True}},
                }
                for kind in ("id", "name")
            ]
        },
        [{"kind": "name"}, {"kind": "id", "id": 1}],
        [{"kind": "id"}],
    ),
    "many conditions": (
        obj(
            properties={"kind": {"enum": list("abcdefghijkl")}, "n": {"enum": [1]}},
            required=["kind"],
            allOf=[
                {"if": {"properties": {"kind": {"const": kind}}}, "then": {"required": ["n"]}}
                for kind in "abcdefghij"
            ],
        ),
        [{"kind": "k"}, {"kind": "c", "n": 1}, {"kind": "l", "n": 1}],
        [{"kind": "a"}, {"kind": "j"}, {}],
    ),
    "not these values": (
        {"type": ["string", "integer", "boolean", "null"], "not": {"enum": ["a", 1, None]}},
        ["b", 2, True, False, "", "aa"],
        ["a", 1, None],
    ),
    "not a type": (
        {"not": {"type": ["object", "array", "number"]}},
        ["a", None, True],
        [1, {}, []],
    ),
    "dependentRequired": (
        TWO | {"dependentRequired": {"id": ["name"]}},
        [{}, {"name": "x"}, {"id": 1, "name": "x"}],
        [{"id": 1}],
    ),
    "a named property beside a free one": (
        {"anyOf": [obj(properties={"a": {"enum": [1]}}), obj(additionalProperties={"enum": [2]})]},
        [{"a": 1}, {"a": 2}, {"a": 2, "b": 2}, {"b": 2}],
        [{"a": 1, "b": 2}, {"b": 1}],
    ),
    "fixed objects beside others": (
        {"anyOf": [{"enum": [{"a": [1]}, [2, 3]]}, obj(properties={"a": {"enum": [1]}})]},
        [{"a": [1]}, [2, 3], {"a": 1}, {}],
        [{"a": [2]}, [2]],
    ),
    "required beyond properties": (
        obj(properties={"a": {"enum": [1]}}, required=["a", "b"]),
        [{"a": 1, "b": "any"}, {"a": 1, "b": {"c": [1]}}],
        [{"a": 1}, {"b": 1}],
    ),
    "patternProperties": (
        obj(
            patternProperties={"^x-": {"type": "integer"}, "y$": {"type": "number", "minimum": 5}},
            additionalProperties={"type": "boolean"},
            properties={"x-known": {"maximum": 3}, "plain": {"enum": ["p"]}},
        ),
        [{"x-a": 1}, {"x-y": 5}, {"dy": 5.5}, {"other": True}, {"x-known": 3, "plain": "p"}],
        [{"x-a": True}, {"x-y": 5.5}, {"x-y": 1}, {"other": 1}, {"x-known": 4}],
    ),
    "patternProperties alone": (
        obj(patternProperties={"^[a-z]+$": {"enum": [1]}}),
        [{}, {"a": 1}, {"a": 1, "b": 1}],
        [{"a": 2}, {"A": 1}],
    ),
    "propertyNames that say nothing": (
        obj(propertyNames={"type": "string"}, additionalProperties={"enum": [1]}),
        [{}, {"a b": 1}],
        [{"a": 2}],
    ),
    "propertyNames of a pattern": (
        obj(propertyNames={"pattern": "^[a-z]+$", "maxLength": 2}, additionalProperties=True),
        [{"a": 1, "bc": None}],
        [{"A": 1}, {"abc": 1}],
    ),
    "propertyNames of values": (
        obj(propertyNames={"enum": ["a", "b"]}, additionalProperties={"type": "integer"}),
        [{}, {"b": 1}, {"a": 1, "b": 2}],
        [{"c": 1}, {"a": "x"}],
    ),
    "at least one property": (TWO | {"minProperties": 1}, [{"id": 1}, {"name": "x"}], [{}]),
    "counts of free properties": (
        obj(additionalProperties={"enum": [1]}, minProperties=1, maxProperties=2),
        [{"a": 1}, {"a": 1, "b": 1}],
        [{}, {"a": 1, "b": 1, "c": 1}],
    ),
    "unevaluatedProperties": (
        obj(allOf=[{"properties": {"a": {"enum": [1]}}}], unevaluatedProperties=False),
        [{}, {"a": 1}],
        [{"b": 1}],
    ),
    "keywords without effect": (
        {"type": "array", "items": {"enum": [1]}, "uniqueItems": False, "maxItems": 2},
        [[1, 1]],
        [[2]],
    ),
}


@QUOTED
@pytest.mark.parametrize("kind", EXACT)
def test_what_the_schema_admits_the_grammar_admits_and_no_more(kind: str, is_quoted: bool) -> None:
    schema, right, wrong = EXACT[kind]
    grammar = grammar_of(schema, is_quoted)
    assert not grammar.notes
    assert [value for value in right if not grammar.accepts(value)] == []
    assert [value for value in wrong if grammar.accepts(value)] == []


@pytest.mark.parametrize(
    ("keywords", "note"),
    [
        ({"contains": {"const": 1}}, "contains"),
        ({"uniqueItems": True}, "uniqueItems"),
        ({"oneOf": [{"maxItems": 3}, {"items": {"type": "integer"}}]}, "oneOf, taken as anyOf"),
        ({"not": {"contains": {"const": 1}}}, "not"),
        ({"if": {"uniqueItems": True}, "then": {"maxItems": 1}}, "if"),
        ({"$ref": "#/$defs/nowhere"}, "$ref that leads nowhere (#/$defs/nowhere)"),
        ({"$ref": "other.json"}, "$ref to another document"),
        ({"allOf": [{"contains": {"const": 1}}, {"maxItems": 5}]}, "contains"),
        ({"minItems": 5_000}, "minItems"),
    ],
)
def test_a_keyword_beyond_grammars_is_left_out_where_it_stands(
    keywords: dict[str, Json], note: str
) -> None:
    listed = {"type": "array", "items": {"type": "integer", "maximum": 9}} | keywords
    schema: Json = obj(properties={"list": listed, "other": {"enum": [1]}}, required=["list"])
    grammar = grammar_of(schema)
    assert grammar.notes == (note,)
    assert grammar.accepts({"list": [2, 2], "other": 1})
    # What stands beside it is enforced.
    assert not grammar.accepts({"list": [10]}) and not grammar.accepts({"list": [1], "other": 2})


def test_a_value_that_holds_a_control_token_is_not_written() -> None:
    choice: Json = {"enum": ["a<end>", "b"]}
    schema: Json = obj(properties={"x": choice, "<end>": {}}, required=["x"])
    grammar = grammar_of(schema, control_tokens=("<end>",))
    assert grammar.notes == ("a name or value with the control token <end>",)
    assert grammar.accepts({"x": "b"}) and not grammar.accepts({"x": "a<end>"})
    with pytest.raises(Unsatisfiable):
        grammar_of({"const": "<end>"}, control_tokens=("<end>",))

"""What repair makes of the schemas of people's bug reports, and of others of their kinds."""

import json
from pathlib import Path
from typing import Any

import pytest

from calltune.schemas import validate
from calltune.schemas.parameters import allows, read_parameters
from calltune.schemas.repair import repair_any_schema, repair_schema
from calltune.schemas.tools import read_tools
from calltune.schemas.validate import satisfies
from calltune.tools import from_openai

CASES = Path(__file__).parents[1] / "cases"
COLOUR = {"type": "string", "enum": ["red", "blue"]}
INTEGER = {"type": "integer"}


def argument(written: Any, **root: Any) -> Any:
    """What becomes of the schema of an argument."""
    whole = {"type": "object", "properties": {"a": written}, **root}
    return repair_schema(whole).schema["properties"]["a"]


def rows(folder: str) -> dict[str, dict[str, Any]]:
    lines = (CASES / "rows" / folder / "rows.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


@pytest.mark.parametrize("name", rows("07-nullable"))
def test_null_and_values_of_another_type_are_what_the_tool_takes(name: str) -> None:
    row = rows("07-nullable")[name]
    (tool,) = read_tools(row["tools"]).tools
    call = row["messages"][1]["tool_calls"][0]["function"]
    assert satisfies(call["arguments"], tool.parameters)
    assert not satisfies({"colour": ["red"]}, tool.parameters)
    assert not satisfies({}, tool.parameters)


@pytest.mark.parametrize("name", rows("08-root-without-type"))
def test_a_root_without_a_type_is_a_schema(name: str) -> None:
    row = rows("08-root-without-type")[name]
    (tool,) = read_tools(row["tools"]).tools
    call = row["messages"][1]["tool_calls"][0]["function"]
    assert satisfies(call["arguments"], tool.parameters)
    assert allows(tool.parameters, "title")
    assert not satisfies({"title": 3}, tool.parameters) and not satisfies({}, tool.parameters)
    if name != "anyof-root":
        assert list(tool.parameters["properties"])[0] == "title"
        assert not allows(tool.parameters, "type") and not allows(tool.parameters, "$ref")


@pytest.mark.parametrize("name", rows("22-flat-required"))
def test_the_unmarked_are_optional_where_some_are_marked_as_required(name: str) -> None:
    row = rows("22-flat-required")[name]
    (tool,) = read_tools(row["tools"]).tools
    assert list(tool.parameters["properties"]) == ["title", "tag"]
    assert tool.parameters["required"] == ["title"]
    assert "required" not in json.dumps(tool.parameters["properties"])
    assert satisfies(row["answers"][0]["arguments"], tool.parameters)


@pytest.mark.parametrize(
    ("mark", "is_required"),
    [(True, True), ("true", True), ("True", True), (1, True), ("no", False), (False, False)],
)
def test_a_flat_argument_says_that_it_is_required_in_several_ways(
    mark: Any, is_required: bool
) -> None:
    flat = {"a": {"type": "str", "required": mark}, "b": {"type": "str"}, "c": "int"}
    assert read_parameters(flat).schema["required"] == (["a"] if is_required else [])
    nested = {"type": "object", "properties": flat}
    assert read_parameters(nested).schema["required"] == (["a"] if is_required else [])


def test_the_root_of_a_real_schema_is_not_flat_arguments() -> None:
    toolset = from_openai(CASES / "tools_and_endpoint" / "30-root-forms" / "openai.json")
    found = {tool.name: tool.parameters for tool in toolset.tools}
    assert {name: list(each["properties"]) for name, each in found.items()} == {
        "only_schema_key": [],
        "root_ref": ["a"],
        "root_ref_components": ["a"],
        "root_oneOf": [],
        "root_allOf": ["a"],
        "schema_and_closed": [],
        "props_no_type": ["a"],
        "props_no_type_extra": ["a"],
        "type_list": ["a"],
        "type_object_null": ["a"],
        "id_title": ["a"],
        "empty": [],
        "type_arg": ["type", "properties"],
    }
    assert toolset.notes == ()
    assert found["root_ref"]["required"] == found["root_allOf"]["required"] == ["a"]
    assert not satisfies({"c": 1}, found["root_oneOf"])


@pytest.mark.parametrize(
    "flat",
    [
        {"properties": {"type": "dict", "description": "of the shape"}},
        {"definitions": {"type": "list", "description": "to read"}},
        {"title": {"type": "str"}, "description": {"type": "str"}},
        {"type": "str", "title": "str"},
        {"items": {"type": "List[str]"}, "enum": {"type": "str"}},
        {"$schema": "https://x.test", "negated": {"type": "bool"}},
    ],
)
def test_arguments_may_be_called_like_keywords(flat: Any) -> None:
    names = [name for name in flat if not name.startswith("$")]
    assert list(read_parameters(flat).schema["properties"]) == names


def test_a_keyword_that_is_null_or_of_an_older_draft_means_one_thing() -> None:
    toolset = from_openai(CASES / "tools_and_endpoint" / "07-required-null" / "all-tools.json")
    found = {tool.name: tool.parameters for tool in toolset.tools}
    text = {"type": "string"}
    assert found["required_null"]["properties"] == {"q": text}
    assert found["nested_required_null"]["properties"]["f"] == {
        "type": "object",
        "properties": {"a": text},
    }
    assert found["items_null"]["properties"] == {"l": {"type": "array"}}
    assert (
        found["enum_null"]["properties"] == found["description_null"]["properties"] == {"l": text}
    )
    assert found["draft4_exclusive"]["properties"]["n"] == {"type": "number", "exclusiveMinimum": 0}
    assert found["draft7_tuple"]["properties"]["p"] == {
        "type": "array",
        "prefixItems": [{"type": "number"}, {"type": "number"}],
        "items": False,
    }
    assert found["required_true_in_property"]["required"] == ["q"]
    # A name that has no property takes any value.
    assert found["req_unknown"]["properties"] == {"a": text, "b": {}}
    assert satisfies({"a": "x", "b": [1]}, found["req_unknown"])
    for name in ("ref_pydantic_template", "ref_missing_anchor"):
        assert found[name]["properties"] == {"colour": {}}
    lost = [note for note in toolset.notes if note.is_loss]
    assert [note.tool for note in lost] == ["ref_pydantic_template", "ref_missing_anchor"]
    assert "/$defs/Colour in properties/colour" in lost[0].text and "#nowhere" in lost[1].text


@pytest.mark.parametrize(
    ("written", "repaired"),
    [
        ({"minimum": 1, "exclusiveMinimum": False}, {"minimum": 1}),
        ({"type": "integer", "divisibleBy": 5}, {"type": "integer", "multipleOf": 5}),
        ({"type": ["string", INTEGER]}, {"anyOf": [{"type": ["string"]}, INTEGER]}),
        ({"dependencies": {"a": ["b"], "c": COLOUR}},
         {"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"c": COLOUR}}),
        ({"extends": COLOUR}, {"allOf": [COLOUR]}),
        ({"items": [INTEGER]}, {"prefixItems": [INTEGER]}),
        ({"type": "STRING", "format": "enum", "enum": ["a"], "nullable": True},
         {"type": ["string", "null"], "format": "enum", "enum": ["a", None]}),
        ({"type": "TYPE_UNSPECIFIED"}, {}),
        ({"type": "ARRAY", "minItems": "1", "items": {"type": "NUMBER"}},
         {"type": "array", "minItems": 1, "items": {"type": "number"}}),
        ({"$ref": "#/$defs/C", "nullable": True},
         {"anyOf": [{"$ref": "#/$defs/C"}, {"type": "null"}]}),
        ({"type": "string", "x-nullable": "true"}, {"type": ["string", "null"]}),
        ({"type": "Optional[str]", "enum": ["a"]},
         {"anyOf": [{"type": "string"}, {"type": "null"}], "enum": ["a", None]}),
        ({"type": "string", "enum": ["a", None, 1]},
         {"type": ["string", "null", "integer"], "enum": ["a", None, 1]}),
        ({"type": "number", "enum": [1, 2.5]}, {"type": "number", "enum": [1, 2.5]}),
        ({"type": "string", "const": 1}, {"type": "integer", "const": 1}),
        ({"type": "int | str", "anyOf": [INTEGER]},
         {"allOf": [{"anyOf": [INTEGER, {"type": "string"}]}], "anyOf": [INTEGER]}),
        ({"type": "string", "optional": True, "examples": "x"},
         {"type": "string", "examples": ["x"]}),
        ({"type": "object", "propertyNames": {"type": "string"}}, {"type": "object"}),
        ({"type": "object", "properties": [{"name": "b", "type": "int"}]},
         {"type": "object", "properties": {"b": INTEGER}}),
        ("str", {"type": "string"}),
        (["string", "null"], {"type": ["string", "null"]}),
        ({"anyOf": [COLOUR, True]}, {"anyOf": [COLOUR, {}]}),
    ],
)  # fmt: skip
def test_each_spelling_becomes_that_of_draft_2020_12(written: Any, repaired: Any) -> None:
    assert argument(written, **{"$defs": {"C": COLOUR}}) == repaired


@pytest.mark.parametrize(
    ("written", "repaired"),
    [
        ({"minLength": "many", "maxLength": 3}, {"maxLength": 3}),
        ({"type": "string", "pattern": "(", "minLength": 1}, {"type": "string", "minLength": 1}),
        ({"type": "file", "description": "d"}, {"description": "d"}),
        ({"type": "array", "items": 3, "minItems": 1}, {"type": "array", "minItems": 1}),
        ({"properties": {"b": 3, "c": INTEGER}}, {"properties": {"b": {}, "c": INTEGER}}),
        ({"patternProperties": {"(": INTEGER, "^x": INTEGER}, "additionalProperties": False},
         {"patternProperties": {"^x": INTEGER}}),
        ({"properties": None, "additionalProperties": False}, {}),
        ({"oneOf": [{"type": "integer", "minimum": []}, COLOUR]}, {"anyOf": [INTEGER, COLOUR]}),
        ({"not": {"type": "integer", "minimum": []}, "minLength": 1}, {"minLength": 1}),
        ({"if": 3, "then": INTEGER, "minLength": 1}, {"minLength": 1}),
        ({"type": "array", "contains": INTEGER, "minContains": "x"}, {"type": "array"}),
    ],
)  # fmt: skip
def test_a_fault_costs_the_keyword_where_it_stands(written: Any, repaired: Any) -> None:
    whole = {"type": "object", "properties": {"a": written, "b": COLOUR}, "required": ["a"]}
    schema, remarks = repair_schema(whole)
    assert schema == {**whole, "properties": {"a": repaired, "b": COLOUR}}
    assert remarks and all("properties/a" in each.example for each in remarks)


@pytest.mark.parametrize("name", ["absolute-id", "anchor-2020", "anchor-draft7-id", "pointer"])
def test_references_are_followed_by_the_rules_of_json_schema(name: str) -> None:
    body = json.loads((CASES / "tools_and_endpoint" / "14-refs" / f"{name}.json").read_text())
    toolset = from_openai(body)
    assert toolset.notes == ()
    assert satisfies({"colour": "red"}, toolset.tools[0].parameters)
    assert not satisfies({"colour": "green"}, toolset.tools[0].parameters)


@pytest.mark.parametrize(
    ("reference", "definition"),
    [
        ("http://x.test/dir/colour.json", {"$id": "colour.json"}),
        ("colour.json#", {"$id": "/dir/colour.json"}),
        ("#/$defs/C", {}),
        ("http://x.test/dir/all.json#/$defs/C", {}),
        ("all.json#red", {"$anchor": "red"}),
        ("#red", {"id": "#red"}),
        ("urn:example:colour", {"$id": "urn:example:colour"}),
        ("colour.json#red", {"$id": "colour.json#red"}),
    ],
)
def test_identifiers_are_joined_to_their_base(reference: str, definition: Any) -> None:
    root = {"$id": "http://x.test/dir/all.json", "$defs": {"C": {**COLOUR, **definition}}}
    found = repair_any_schema({**root, "properties": {"a": {"$ref": reference}}})
    assert found.remarks == ()
    assert found.schema["properties"]["a"] == {"$ref": "#/$defs/C"}
    assert not satisfies({"a": "green"}, found.schema)


def test_dynamic_and_recursive_references_are_ordinary_where_one_target_is_meant() -> None:
    for reference, anchor in (
        ({"$dynamicRef": "#n"}, {"$dynamicAnchor": "n"}),
        ({"$recursiveRef": "#"}, {"$recursiveAnchor": True}),
    ):
        node = {**anchor, "type": "object", "properties": {"next": reference, "n": INTEGER}}
        schema, remarks = repair_any_schema(node)
        assert remarks == () and schema["properties"]["next"] == {"$ref": "#"}
        assert satisfies({"next": {"n": 1}}, schema)
        assert not satisfies({"next": {"n": "1"}}, schema)


def test_what_stands_beside_a_reference_counts_since_2019() -> None:
    part = {"$ref": "#/definitions/C", "maxLength": 3, "description": "d"}
    whole = {"properties": {"a": part}, "definitions": {"C": COLOUR}}
    assert not satisfies({"a": "blue"}, repair_any_schema(whole).schema)
    older = {"$schema": "http://json-schema.org/draft-07/schema#", **whole}
    schema, remarks = repair_any_schema(older)
    assert satisfies({"a": "blue"}, schema) and not remarks[0].is_loss
    assert schema["properties"]["a"] == {"$ref": "#/definitions/C", "description": "d"}


def test_a_kind_of_fault_is_one_remark_with_its_number_and_its_first_place() -> None:
    properties = {name: {"type": "string", "enum": None} for name in "abc"}
    (remark,) = repair_schema({"type": "object", "properties": properties}).remarks
    assert str(remark) == "null keywords are left out (properties/a/enum and 2 more)"


def test_patterns_are_ecmascripts(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = r"^\p{Lu}(?<rest>[a-z]+)$"
    schema, remarks = repair_any_schema({"type": "string", "pattern": pattern})
    assert remarks == () and schema["pattern"] == pattern
    assert satisfies("Émile", schema) and not satisfies("émile", schema)
    monkeypatch.setattr(validate, "_MAX_SEARCH_S", 0.02)
    # A pattern that takes too long refuses nothing, and the rest is checked all the same.
    slow = {"pattern": "^(a|a)*(a|a)*(a|a)*$", "maxLength": 10}
    assert not satisfies("a" * 40 + "b", slow)


def test_a_root_of_one_keyword_is_a_schema() -> None:
    assert read_parameters({"required": ["title"]}).schema["properties"] == {"title": {}}
    assert read_parameters({"minProperties": 1}).schema["minProperties"] == 1
    assert read_parameters({"required": None}).schema["properties"] == {}


def test_required_may_be_json_in_a_string() -> None:
    for flat in ({"a": {"type": "str"}, "b": {"type": "str"}}, {"a": "str", "b": "str"}):
        assert read_parameters({**flat, "required": '["a"]'}).schema["required"] == ["a"]

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from calltune.errors import DataError
from calltune.tools import Toolset, from_openapi


def document(paths: dict[str, Any], version: str = "3.1.0", **schemas: Any) -> dict[str, Any]:
    return {"openapi": version, "paths": paths, "components": {"schemas": schemas}}


def posts(schema: Any, required: bool = True, **more: Any) -> dict[str, Any]:
    """Paths with one operation that has this schema for its JSON body."""
    body = {"required": required, "content": {"application/json": {"schema": schema}}}
    return {"/p": {"post": {"operationId": "op", "requestBody": body, **more}}}


def parameters(source: dict[str, Any]) -> dict[str, Any]:
    (tool,) = from_openapi(source).tools
    Draft202012Validator.check_schema(tool.parameters)
    return tool.parameters


def texts(toolset: Toolset) -> list[str]:
    return [note.text for note in toolset.notes]


PET = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def test_parameters_and_body_become_one_object() -> None:
    operation = {
        "operationId": "change pet",
        "summary": "Change a pet.",
        "description": "All of it.",
        "parameters": [
            {"name": "id", "in": "path", "schema": {"type": "integer"}, "required": True},
            {
                "name": "dry",
                "in": "query",
                "schema": {"type": "boolean"},
                "description": "Only try.",
            },
            {"name": "X-Trace", "in": "header", "required": True, "schema": {"type": "string"}},
            {"name": "id", "in": "query", "schema": {"type": "string"}},
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json; charset=utf-8": {"schema": PET}},
        },
    }
    shared = [{"name": "dry", "in": "query", "schema": {"type": "string"}}]
    toolset = from_openapi(document({"/pets/{id}": {"parameters": shared, "put": operation}}))
    (tool,) = toolset.tools
    assert (tool.name, tool.description) == ("change_pet", "Change a pet.\n\nAll of it.")
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "dry": {"type": "boolean", "description": "Only try."},
            "id": {"type": "integer"},
            "X-Trace": {"type": "string"},
            "id_query": {"type": "string"},
            "name": {"type": "string"},
        },
        "required": ["id", "X-Trace", "name"],
    }
    assert texts(toolset) == [
        "query parameter id is called id_query: another one has its name",
        "called change_pet here: its name is not valid",
    ]


def test_an_operation_without_an_id_is_named_by_method_and_path() -> None:
    toolset = from_openapi(document({"/pets/{id}": {"get": {}, "delete": {}}}))
    assert toolset.original_names == {
        "get_pets_id": "get /pets/{id}",
        "delete_pets_id": "delete /pets/{id}",
    }


@pytest.mark.parametrize(
    ("schema", "required"),
    [
        ({"type": "array", "items": {"type": "string"}}, True),
        ({"type": "object", "additionalProperties": {"type": "string"}}, True),
        ({"oneOf": [PET, {"type": "string"}]}, True),
        ({"type": "object", "properties": {"q": {}}}, True),
        (PET, False),
    ],
    ids=["list", "map", "one of", "a name that clashes", "may be left out whole"],
)
def test_a_body_that_cannot_stand_beside_parameters_stays_whole(
    schema: Any, required: bool
) -> None:
    query = [{"name": "q", "in": "query", "schema": {"type": "string"}}]
    found = parameters(document(posts(schema, required, parameters=query)))
    assert list(found["properties"]) == ["q", "body"]
    assert found["properties"]["body"] == schema
    assert ("body" in found["required"]) is required


def test_plain_objects_in_all_of_are_put_together() -> None:
    schema = {"allOf": [{"$ref": "#/components/schemas/Pet"}, {"properties": {"age": {}}}]}
    found = parameters(document(posts(schema), Pet=PET))
    assert found["properties"] == {"name": {"type": "string"}, "age": {}}
    assert found["required"] == ["name"]


def test_references_are_inlined_and_recursive_ones_defined() -> None:
    node = {
        "type": "object",
        "properties": {
            "pet": {"$ref": "#/components/schemas/Pet", "description": "Whose."},
            "next": {"$ref": "#/components/schemas/Node"},
        },
    }
    found = parameters(document(posts({"$ref": "#/components/schemas/Node"}), Pet=PET, Node=node))
    inner = {**PET, "description": "Whose."}
    assert found["properties"] == {"body": {"$ref": "#/$defs/Node"}}
    assert found["$defs"]["Node"]["properties"] == {
        "pet": inner,
        "next": {"$ref": "#/$defs/Node"},
    }
    assert Draft202012Validator(found).is_valid({"body": {"next": {"next": {}}}})
    assert not Draft202012Validator(found).is_valid({"body": {"next": {"next": {"pet": 3}}}})


def test_references_that_double_at_each_step_do_not_grow_without_end() -> None:
    schemas: dict[str, Any] = {"S40": {"type": "integer"}}
    for i in range(40):
        part = {"$ref": f"#/components/schemas/S{i + 1}"}
        schemas[f"S{i}"] = {"type": "object", "properties": {"a": part, "b": part}}
    found = parameters(document(posts({"$ref": "#/components/schemas/S0"}), **schemas))
    assert len(json.dumps(found)) < 1_000_000
    assert "S40" in found["$defs"]


@pytest.mark.parametrize("last", [{"type": "integer"}, {"$ref": "#/components/schemas/S0"}])
def test_hundreds_of_schemas_may_refer_to_each_other_in_a_row(last: Any) -> None:
    schemas: dict[str, Any] = {f"S{i}": {"items": {"$ref": f"#/components/schemas/S{i + 1}"}}
                               for i in range(400)}  # fmt: skip
    found = parameters(document(posts({"$ref": "#/components/schemas/S0"}), **schemas, S400=last))
    assert "S400" in found["$defs"] or "integer" in json.dumps(found)


def test_parts_elsewhere_in_the_document_are_found() -> None:
    source = document({"/a~b": {"$ref": "#/components/pathItems/p"}})
    source["components"]["pathItems"] = {
        "p": {"get": {"parameters": [{"$ref": "#/components/parameters/x~1y"}]}}
    }
    source["components"]["parameters"] = {
        "x/y": {"name": "n", "in": "query", "content": {"application/json": {"schema": PET}}}
    }
    assert parameters(source)["properties"] == {"n": PET}


def test_the_spellings_of_3_0_become_those_of_json_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "nullable": True, "enum": ["x"], "example": "x"},
            "b": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 9,
                  "exclusiveMaximum": False},
            "c": {"allOf": [{"$ref": "#/components/schemas/Pet"}], "nullable": True},
            "d": {"type": "string", "xml": {}, "x-internal": 1, "description": "kept"},
        },
    }  # fmt: skip
    found = parameters(document(posts(schema), "3.0.3", Pet=PET))["properties"]
    assert found["a"] == {"type": ["string", "null"], "enum": ["x", None], "examples": ["x"]}
    assert found["b"] == {"type": "number", "exclusiveMinimum": 0, "maximum": 9}
    assert found["c"] == {"anyOf": [{"allOf": [PET]}, {"type": "null"}]}
    assert found["d"] == {"type": "string", "description": "kept"}


def test_what_only_answers_have_is_left_out_and_named() -> None:
    schema = {
        "type": "object",
        "properties": {"id": {"type": "integer", "readOnly": True}, "name": {}},
        "required": ["id", "name"],
    }
    toolset = from_openapi(document(posts(schema)))
    assert toolset.tools[0].parameters["required"] == ["name"]
    assert texts(toolset) == ["only responses have id; left out"]


def test_what_cannot_be_expressed_is_named() -> None:
    multipart = {"content": {"multipart/form-data": {}}}
    get: dict[str, Any] = {
        "operationId": "get",
        "parameters": [
            {"name": "session", "in": "cookie", "schema": {}},
            {"name": "Authorization", "in": "header", "schema": {}},
            {"name": "far", "in": "query", "schema": {"$ref": "other.yaml#/x"}},
            {"name": "odd", "in": "query", "content": {"text/csv": {}}},
            {"$ref": "#/components/parameters/none"},
        ],
        "requestBody": multipart,
        "callbacks": {"done": {}},
    }
    post = {"operationId": "post", "requestBody": {**multipart, "required": True}}
    source = document({"/a": {"get": get, "post": post}}) | {"webhooks": {"w": {}}}
    toolset = from_openapi(source)
    assert [(tool.name, list(tool.parameters["properties"])) for tool in toolset.tools] == [
        ("get", ["far", "odd"])
    ]
    assert [f"{note.tool}: {note.text}" for note in toolset.notes] == [
        ": webhooks are left out: the server calls them",
        "get: callbacks are left out: the server calls them",
        "get: reference #/components/parameters/none leads nowhere here; left out",
        "get: cookie session is left out: the application keeps cookies",
        "get: header Authorization is left out: the application sets it",
        "get: reference other.yaml#/x leads nowhere here; any value is allowed",
        "get: query parameter odd has no valid JSON Schema; any value is allowed",
        "get: its body is not JSON (multipart/form-data)",
        "post: left out: its body is not JSON (multipart/form-data)",
    ]


YAML = """\
openapi: 3.0.0
paths:
  /switch:
    post:
      operationId: switch
      parameters:
        - {name: to, in: query, schema: {type: string, enum: [on, off, no, 2020-01-01]}}
      responses:
        200: {description: ok}
"""


def test_yaml_is_read_as_yaml_1_2(tmp_path: Path) -> None:
    (tmp_path / "api.yaml").write_text(YAML)
    (tool,) = from_openapi(tmp_path / "api.yaml").tools
    assert tool.parameters["properties"]["to"]["enum"] == ["on", "off", "no", "2020-01-01"]


BOMB = "- &a0 [1]\n" + "".join(f"- &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9))
"""Each line has nine of the one before."""


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"swagger": "2.0"}', "is Swagger 2.0; convert it to OpenAPI 3"),
        ("a.json", '{"openapi": "4.0"}', "is OpenAPI 4.0; convert"),
        ("a.json", "[]", "is not an OpenAPI document"),
        ("a.json", "{", "is not JSON"),
        ("a.yaml", "a: [", "is not YAML"),
        ("a.yaml", "&a [*a]", "is not YAML"),
        pytest.param(
            *("a.yaml", BOMB, "is not YAML (more than 2,000,000 values)"), marks=pytest.mark.slow
        ),
        ("a.json", '{"openapi": "3.1.0", "paths": {}}', "has no operations"),
        ("b.yaml", None, "No file"),
    ],
)
def test_what_is_no_document_is_one_line(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as raised:
        from_openapi(str(tmp_path / name))
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("odd", [None, 3, "x", [], {"$ref": 3}, {"$ref": "#/paths"}, True])
def test_odd_parts_do_no_harm(odd: Any) -> None:
    for paths in (
        odd,
        {"/a": odd},
        {"/a": {"get": odd}},
        {"/a": {"get": {"parameters": odd}}},
        {"/a": {"get": {"parameters": [odd]}}},
        {"/a": {"get": {"parameters": [{"name": "x", "in": "query", "schema": odd}]}}},
        {"/a": {"get": {"requestBody": odd}}},
        {"/a": {"get": {"requestBody": {"content": odd}}}},
        posts(odd),
        posts({"type": "object", "properties": odd, "required": odd}),
        posts({"allOf": [odd, {"properties": {"x": odd}, "required": odd}]}),
    ):
        try:
            toolset = from_openapi(document(paths))
        except DataError:
            continue
        for tool in toolset.tools:
            Draft202012Validator.check_schema(tool.parameters)


def test_a_reference_to_itself_ends() -> None:
    source = document(
        posts({"$ref": "#/components/schemas/A"}),
        A={"$ref": "#/components/schemas/B"},
        B={"$ref": "#/components/schemas/A"},
    )
    assert parameters(source)["$defs"].keys() == {"A", "B"}

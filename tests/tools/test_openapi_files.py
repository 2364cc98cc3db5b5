"""OpenAPI documents as people keep them: in YAML 1.2, in several files, with identifiers, forms."""

import json
from pathlib import Path
from typing import Any

import pytest

from calltune.errors import DataError
from calltune.schemas.validate import satisfies
from calltune.tools import Toolset, from_openapi
from calltune.tools.openapi_files import read_document

CASES = Path(__file__).parents[1] / "cases" / "tools_and_endpoint"
TEXT = {"type": "string"}


def tools(toolset: Toolset) -> dict[str, dict[str, Any]]:
    return {tool.name: tool.parameters for tool in toolset.tools}


def test_yaml_is_1_2() -> None:
    (tool,) = from_openapi(CASES / "29-yaml" / "norway.yaml").tools
    found = {name: part.get("enum") for name, part in tool.parameters["properties"].items()}
    assert found == {
        "country": ["ca", "no", "us"],
        "slot": ["12:30", "22:30", "08:15"],
        "mode": [755, 644],
        "code": ["1_000", "2_000"],
        "rev": [1000, "2024-01-31"],
        "y": None,
        "on": None,
        "hex": [31],
        "count": [1, 2, 15],
        "price": None,
        "nothing": None,
        "big": None,
    }
    properties = tool.parameters["properties"]
    assert properties["on"]["default"] == "off" and properties["price"]["default"] == 1.5
    assert properties["big"]["maximum"] == 1_000_000
    assert properties["nothing"] == {"type": ["string", "null"], "default": None}


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        *(("yes", "yes"), ("On", "On"), ("true", True), ("TRUE", True), ("tRue", "tRue")),
        *(("~", None), ("", None), ("Null", None), ("nULL", "nULL"), ("NaN", "NaN")),
        *(("1_000", "1_000"), ("0b11", "0b11"), ("0o17", 15), ("0x1f", 31), ("007", 7), ("+5", 5)),
        *(("190:20:30", "190:20:30"), ("1e3", 1000.0), ("1.", 1.0), (".5", 0.5), ("-1E-2", -0.01)),
        *((".inf", "inf"), ("2024-01-31", "2024-01-31"), ("=", "="), ("1.2.3", "1.2.3")),
        *(("'12'", "12"), ("!!str 12", "12"), ("12e", "12e"), ("0o8", "0o8"), ("-", [None])),
    ],
)
def test_a_plain_scalar_is_what_the_core_schema_says(
    tmp_path: Path, scalar: str, value: Any
) -> None:
    (tmp_path / "a.yaml").write_text(f"a:\n  {scalar}\n")
    assert read_document(tmp_path / "a.yaml") == {"a": value}


def test_yaml_keys_are_text_and_merged_maps_are_merged(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\n200: ok\ntrue: t\non: o\n"
    )
    assert read_document(tmp_path / "a.yaml") == {
        "x": {"a": 1, "b": 2},
        "y": {"a": 1, "b": 3},
        "200": "ok",
        "true": "t",
        "on": "o",
    }


def test_the_fields_of_a_form_are_arguments() -> None:
    toolset = from_openapi(CASES / "12-form-body" / "form.yaml")
    found = tools(toolset)
    assert {name: list(each["properties"]) for name, each in found.items()} == {
        "issueToken": ["grant_type", "scope"],
        "createCharge": ["amount", "currency", "metadata"],
        "uploadFile": ["file", "note"],
        "bothKinds": ["a"],
    }
    assert found["issueToken"]["required"] == ["grant_type"]
    assert found["createCharge"]["required"] == [] and toolset.notes == ()


def test_plain_text_is_one_argument_and_other_bodies_are_named() -> None:
    def posts(kind: str) -> dict[str, Any]:
        body = {"required": True, "content": {kind: {"schema": TEXT}}}
        return {"post": {"operationId": kind.replace("/", "_"), "requestBody": body}}

    kinds = ("text/plain", "image/png")
    toolset = from_openapi({"openapi": "3.0.3", "paths": {f"/{k}": posts(k) for k in kinds}})
    assert tools(toolset)["text_plain"]["properties"] == {"body": TEXT}
    (note,) = toolset.notes
    assert (note.tool, note.text) == ("image_png", "left out: its body is not JSON (image/png)")


def test_identifiers_and_anchors_are_followed() -> None:
    toolset = from_openapi(CASES / "13-id-anchor" / "pets31.yaml")
    assert toolset.notes == ()
    found = tools(toolset)
    pet = {"name": "Rex", "category": {"label": "dog"}, "detailsId": 1}
    assert satisfies(pet, found["addPet"])
    for wrong in ({"category": {"label": "cow"}}, {"category": {}}, {"detailsId": 0}):
        assert not satisfies(pet | wrong, found["addPet"])
    assert satisfies({"kind": "cat", "size": 1}, found["addByAnchor"])
    assert not satisfies({"kind": "cow", "size": 1}, found["addByAnchor"])


FILES = {
    "ops/a.yaml": "operationId: getA\nparameters: [{$ref: '../params.yaml#/Id'}]\n",
    "paths/c.yaml": "get: {operationId: getC}\npost: {$ref: '../op.yaml#/x-ops/b'}\n",
    "params.yaml": "Id: {name: id, in: query, required: true, schema: {$ref: '#/Kind'}}\n"
    "Kind: {type: integer}\n",
    "bodies.yaml": "D: {required: true, content: {application/json: {schema: "
    "{$ref: 'schemas.yaml#/E'}}}}\n",
    "schemas.yaml": "E: {type: object, required: [e], properties: {e: {type: boolean}, "
    "next: {$ref: '#/E'}}}\n",
}


def test_operations_and_path_items_in_other_files_are_followed(tmp_path: Path) -> None:
    case = CASES / "32-operation-ref" / "op.yaml"
    (tmp_path / "op.yaml").write_text(case.read_text())
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    toolset = from_openapi(tmp_path / "op.yaml")
    found = tools(toolset)
    assert {name: list(each["properties"]) for name, each in found.items()} == {
        "getA": ["id"],
        "getB": ["q"],
        "getC": [],
        "d": ["id", "body"],
        "e": ["body"],
    }
    assert [note.text for note in toolset.notes] == ["offered twice; kept once"]
    assert found["getA"]["properties"]["id"] == {"type": "integer"}
    assert satisfies({"body": {"e": True, "next": {"e": False}}}, found["e"])
    assert not satisfies({"body": {"e": True, "next": {"e": 1}}}, found["e"])


def test_a_file_that_is_not_there_is_named_and_the_rest_is_kept() -> None:
    toolset = from_openapi(CASES / "32-operation-ref" / "op.yaml")
    assert {"getB", "d", "e"} <= tools(toolset).keys()
    texts = [note.text for note in toolset.notes]
    for name in (
        "ops/a.yaml",
        "paths/c.yaml",
        "params.yaml#/Id",
        "bodies.yaml#/D",
        "schemas.yaml#/E",
    ):
        assert any(name in text for text in texts), name


@pytest.mark.parametrize("reference", ["http://x.test/a.yaml#/A", "/etc/passwd", "a.yaml#/B", "#b"])
def test_what_leads_out_of_the_files_is_left_out_where_it_stands(
    tmp_path: Path, reference: str
) -> None:
    operation = {"operationId": "f", "parameters": [
        {"name": "a", "in": "query", "schema": {"$ref": reference}},
        {"name": "b", "in": "query", "schema": TEXT},
    ]}  # fmt: skip
    (tmp_path / "a.yaml").write_text("A: {type: string}\n")
    (tmp_path / "doc.json").write_text(
        json.dumps({"openapi": "3.1.0", "paths": {"/": {"get": operation}}})
    )
    toolset = from_openapi(tmp_path / "doc.json")
    assert tools(toolset)["f"]["properties"] == {"a": {}, "b": TEXT}
    (note,) = toolset.notes
    assert reference in note.text and note.is_loss


def test_a_broken_file_beside_the_document_costs_what_refers_to_it(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [")
    paths = {"/a": {"$ref": "broken.yaml"}, "/b": {"get": {"operationId": "b"}}}
    (tmp_path / "doc.json").write_text(json.dumps({"openapi": "3.1.0", "paths": paths}))
    toolset = from_openapi(tmp_path / "doc.json")
    assert list(tools(toolset)) == ["b"] and "broken.yaml" in toolset.notes[0].text
    with pytest.raises(DataError, match=r"broken.yaml is not YAML"):
        read_document(tmp_path / "broken.yaml")


def test_a_schema_with_an_identifier_may_refer_to_itself() -> None:
    ticket = {
        "$id": "https://x.test/ticket",
        "type": "object",
        "properties": {"n": {"type": "integer"}, "self": {"$ref": "#"}},
    }
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Ticket"}}}}
    paths = {"/t": {"post": {"operationId": "file", "requestBody": {"required": True, **body}}}}
    toolset = from_openapi(
        {"openapi": "3.1.0", "paths": paths, "components": {"schemas": {"Ticket": ticket}}}
    )
    assert toolset.notes == ()
    (parameters,) = tools(toolset).values()
    assert satisfies({"body": {"self": {"n": 1}}}, parameters)
    assert not satisfies({"body": {"self": {"n": "1"}}}, parameters)

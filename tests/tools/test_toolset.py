import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calltune.schemas.repair import repair_schema
from calltune.tools import from_openai, merge_toolsets
from calltune.tools.toolset import VALID_NAME, ToolDraft, build_toolset
from calltune.types import ToolCall

SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=6)
WORDS = st.sampled_from(
    ["type", "properties", "required", "items", "$ref", "enum", "anyOf", "$defs", "minimum", "a"]
)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["object", "string", "#/$defs/a", "#/properties", "http://x/y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
SCHEMAS = st.dictionaries(WORDS, VALUES, max_size=5)
DRAFTS = st.lists(
    st.builds(ToolDraft, st.text(max_size=70), st.text(max_size=5), SCHEMAS), max_size=5
)


@given(DRAFTS)
def test_schemas_are_accepted_names_carried_and_mapped_back(drafts: list[ToolDraft]) -> None:
    toolset = build_toolset(drafts, ())
    once = [draft for i, draft in enumerate(drafts) if draft not in drafts[:i]]
    assert len(toolset.tools) == len(once)
    for tool, draft in zip(toolset.tools, once, strict=True):
        jsonschema.Draft202012Validator.check_schema(tool.parameters)
        assert tool.parameters["type"] == "object"
        assert VALID_NAME.fullmatch(tool.name)
        assert toolset.original_call(ToolCall(tool.name, {"a": 1})) == ToolCall(
            draft.name, {"a": 1}
        )


def test_a_call_to_something_else_keeps_its_name() -> None:
    assert build_toolset([], ()).original_call(ToolCall("x", {})) == ToolCall("x", {})


def test_a_written_list_reads_back_with_its_original_names(tmp_path: Path) -> None:
    toolset = build_toolset([ToolDraft("get.user", "d", {}), ToolDraft("get_user", "e", {})], ())
    written = toolset.to_json()
    assert [each["function"]["name"] for each in written] == ["get_user_2", "get_user"]
    assert written[0]["x-original-name"] == "get.user" and "x-original-name" not in written[1]
    (tmp_path / "tools.json").write_text(json.dumps(written))
    again = from_openai(tmp_path / "tools.json")
    assert (again.tools, again.original_names) == (toolset.tools, toolset.original_names)


def test_tools_of_several_sources_are_told_apart_and_kept_once() -> None:
    one = build_toolset([ToolDraft("look", "a", {}), ToolDraft("play", "p", {})], ())
    other = build_toolset([ToolDraft("look", "b", {}), ToolDraft("play", "p", {})], ())
    both = merge_toolsets([one, other])
    assert both.original_names == {"look": "look", "play": "play", "look_2": "look"}
    assert [str(note.text) for note in both.notes] == [
        "offered twice; kept once",
        "called look_2 here: its name is taken",
    ]


def test_what_is_no_schema_is_left_open_and_named() -> None:
    written: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {
            "good": {"type": "integer", "default": {"$ref": "data"}},
            "file": {"type": "file"},
            "lost": {"$ref": "#/$defs/nothing", "description": "kept"},
            "default": {"$ref": "#/$defs/none"},
            "far": {"$ref": "https://example.com/schema.json"},
        },
        "required": "good",
    }
    schema, notes = repair_schema(written)
    assert schema["properties"] == {
        "good": {"type": "integer", "default": {"$ref": "data"}},
        "file": {},
        "lost": {"description": "kept"},
        "default": {},
        "far": {},
    }
    assert "$schema" not in schema
    assert sorted(map(str, notes)) == [
        "$ref that leads nowhere is left out (#/$defs/nothing in properties/lost and 2 more)",
        "required is not valid JSON Schema and is left out (required)",
        "type not understood: file (properties/file/type)",
    ]
    assert all(note.is_loss for note in notes)


@pytest.mark.parametrize("kind", ["string", ["array", "null"]])
def test_parameters_that_are_no_object_are_named(kind: Any) -> None:
    schema, (note,) = repair_schema({"type": kind})
    assert schema["type"] == "object" and "another type than object" in note.kind
    for fine in ("object", ["object", "null"], "dict", None, []):
        assert repair_schema({"type": fine}).remarks == ()

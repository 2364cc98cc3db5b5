import json
from pathlib import Path
from typing import Any

import pytest

from calltune.errors import DataError
from calltune.tools import from_openai

LOOK: dict[str, Any] = {
    "name": "look",
    "description": "Look.",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
}


@pytest.mark.parametrize(
    "written",
    [
        [{"type": "function", "function": LOOK}],
        [LOOK],
        [{"type": "function", **LOOK}],
        {"tools": [LOOK]},
        {"functions": [LOOK]},
        LOOK,
    ],
)
def test_wrapped_and_bare_tools_are_read(written: Any) -> None:
    (tool,) = from_openai(written).tools
    assert (tool.name, tool.description) == ("look", "Look.")
    assert tool.parameters["properties"] == {"at": {"type": "string"}}
    # Prompts show it, and have it bare.
    assert tool.raw["name"] == "look"


def test_what_is_no_tool_is_named() -> None:
    toolset = from_openai([LOOK, {"type": "web_search"}, 3, {"name": "x", "parameters": 4}])
    assert [tool.name for tool in toolset.tools] == ["look"]
    assert [note.tool for note in toolset.notes] == ["tool 2", "tool 3", "x"]
    assert toolset.notes[2].text == "left out: tool parameters are not an object: 4"


@pytest.mark.parametrize("text", ["{", '"x"', '{"a": 1}', "3"])
def test_what_is_no_list_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(DataError, match="t.json"):
        from_openai(tmp_path / "t.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No file"):
        from_openai(str(tmp_path / "none.json"))


def test_python_style_types_become_json_schema() -> None:
    written = {"name": "f", "parameters": {"x": {"type": "List[int]"}, "y": {"type": "Blob"}}}
    toolset = from_openai([json.loads(json.dumps(written))])
    assert toolset.tools[0].parameters["properties"]["x"] == {
        "type": "array",
        "items": {"type": "integer"},
    }
    assert [note.text for note in toolset.notes] == [
        "type not understood: Blob (properties/y/type)"
    ]

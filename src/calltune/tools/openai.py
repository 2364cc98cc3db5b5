"""OpenAI's list of function tools as a tool source; tools.json is one.

Source: `tools` of https://platform.openai.com/docs/api-reference/chat/create.
"""

from pathlib import Path

from calltune.errors import DataError
from calltune.files import read_json
from calltune.schemas.tools import UnusableRow, check_json, read_tools
from calltune.tools.toolset import ORIGINAL_NAME, Note, ToolDraft, Toolset, build_toolset
from calltune.types import Json


def from_openai(source: str | Path | Json) -> Toolset:
    """The tools of a JSON file (a path), or of JSON that is parsed already.

    Each is `{"type": "function", "function": {…}}` or the function alone. The list may be under
    `tools` or `functions`. What is not a tool is left out with a note; Python's names of types
    become JSON Schema.

    Raises:
        DataError: no such file, not JSON, or no list of tools in it.
    """
    data = read_json(Path(source)) if isinstance(source, str | Path) else source
    listed = _list(data)
    if listed is None:
        name = source if isinstance(source, str | Path) else "What was given"
        raise DataError(f'{name} has no list of tools; give [{{"type": "function", …}}, …]')
    drafts: list[ToolDraft] = []
    notes: list[Note] = []
    for number, item in enumerate(listed, start=1):
        drafts += read_tool(item, f"tool {number}", notes)
    return build_toolset(drafts, notes)


def read_tool(written: Json, nameless: str, notes: list[Note]) -> list[ToolDraft]:
    """The tool, or none where it is not one; what is not understood is added to `notes`.

    `nameless` is what notes call a tool without a name.
    """
    try:
        offer = read_tools([check_json(written)])
    except UnusableRow as fault:
        notes.append(Note(_name(written) or nameless, f"left out: {fault}"))
        return []
    (tool,) = offer.tools
    original = written.get(ORIGINAL_NAME)
    name = original if isinstance(original, str) and original else tool.name
    notes += [Note(name, remark) for remark in offer.notes]
    return [ToolDraft(name, tool.description, tool.parameters)]


def _list(data: Json) -> list[Json] | None:
    if isinstance(data, dict):
        for key in ("tools", "functions"):
            if isinstance(data.get(key), list):
                return _list(data[key])
        data = [data] if _name(data) else None
    return data if isinstance(data, list) else None


def _name(written: Json) -> str:
    inner = written.get("function", written) if isinstance(written, dict) else {}
    name = inner.get("name") if isinstance(inner, dict) else ""
    return name if isinstance(name, str) else ""

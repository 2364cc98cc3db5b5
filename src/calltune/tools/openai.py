"""Lists of tools as a tool source; tools.json is one.

Source: `tools` of https://platform.openai.com/docs/api-reference/chat/create, and the shapes of
other APIs that `schemas.tool_shapes` knows.
"""

from pathlib import Path

from calltune.errors import DataError
from calltune.files import read_json
from calltune.schemas.tool_shapes import NotATool, find_tools, holds_tools
from calltune.schemas.tools import UnusableRow, tool_parameters
from calltune.tools.toolset import ORIGINAL_NAME, Note, ToolDraft, Toolset, build_toolset
from calltune.types import Json


def from_openai(source: str | Path | Json) -> Toolset:
    """The tools of a JSON file (a path), or of JSON that is parsed already.

    They are OpenAI's, or in any shape that `schemas.tool_shapes` knows. What is not a tool is left
    out with a note, and so is a keyword of a schema that means nothing.

    Raises:
        DataError: no such file, not JSON, or no list of tools in it.
    """
    data = read_json(Path(source)) if isinstance(source, str | Path) else source
    if not holds_tools(data):
        name = source if isinstance(source, str | Path) else "What was given"
        raise DataError(f'{name} has no list of tools; give [{{"type": "function", …}}, …]')
    drafts: list[ToolDraft] = []
    notes: list[Note] = []
    for number, found in enumerate(find_tools(data), start=1):
        try:
            if isinstance(found, NotATool):
                raise UnusableRow(found.reason, found.value)
            parameters = tool_parameters(found)
        except UnusableRow as fault:
            name = found.name or f"tool {number}"
            notes.append(Note(name, f"left out: {fault}", f"left out: {fault.reason}", True))
            continue
        original = found.item.get(ORIGINAL_NAME)
        name = original if isinstance(original, str) and original else found.name
        drafts.append(ToolDraft(name, found.description, parameters))
    return build_toolset(drafts, notes)

"""The list of tools in the terminal: one line a tool, and one line for all notes of a kind."""

import io

import pytest

from calltune.report.tool_list import print_notes, print_tools
from calltune.tools import from_openai


def test_notes_of_one_kind_are_one_line() -> None:
    tools = [{"name": f"get/{i}", "parameters": {"required": None}} for i in range(1_223)]
    toolset = from_openai([*tools, {"name": "x", "parameters": {"a": {"type": "Blob"}}}])
    printed = io.StringIO()
    print_notes(toolset.notes, printed)
    assert printed.getvalue().splitlines() == [
        "  note: 1,223 times: null keywords are left out; first get/0: null keywords are left out "
        "(required)",
        "  note: 1,223 times: called by another name here: its name is not valid; first get/0: "
        "called get_0 here: its name is not valid",
        "  note: x: type not understood: Blob (properties/a/type)",
    ]


def test_each_tool_is_one_line_where_no_terminal_limits_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {f"a_long_argument_{i}": {"type": "string"} for i in range(9)}
    either = {"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}
    toolset = from_openai(
        [{"name": "n" * 60, "description": "d" * 200, "parameters": names},
         {"name": "either", "parameters": either}]
    )  # fmt: skip
    print_tools(toolset.tools)
    shown = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert len(shown) == 4 and shown[3].split() == ["either", "a?,", "b?"]

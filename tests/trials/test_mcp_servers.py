"""MCP servers as people run them, from npm: listed, held to their schemas, and called."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calltune.formats import FORMATS
from calltune.schemas.validate import satisfies
from calltune.tools import mcp
from calltune.tools.mcp import MCPSession

from support.node import NEEDS_NODE
from support.running import ASK, Running

pytestmark = [pytest.mark.real, pytest.mark.slow, NEEDS_NODE]

N_TOOLS = {"filesystem": 14, "everything": 13}


@pytest.fixture(params=N_TOOLS)
def session(
    request: pytest.FixtureRequest, node_packages: Path, tmp_path: Path
) -> Iterator[MCPSession]:
    """A session with a server; the first may use a folder that holds one file."""
    (tmp_path / "note.txt").write_text("buy milk")
    folder = node_packages / "node_modules" / "@modelcontextprotocol" / f"server-{request.param}"
    argument = str(tmp_path) if request.param == "filesystem" else "stdio"
    command = ["node", str(folder / "dist" / "index.js"), argument]
    with mcp.connect(shlex.join(command)) as opened:
        assert len(opened.toolset.tools) >= N_TOOLS[request.param]
        yield opened


def test_all_tools_are_held_to_all_of_their_schemas(session: MCPSession) -> None:
    for tool in session.toolset.tools:
        assert not FORMATS["chatml"].grammar([tool], [], frozenset()).notes
    assert not session.toolset.notes


def test_a_call_to_each_tool_is_one_that_the_server_takes(
    session: MCPSession, tiny_server: Running
) -> None:
    n_taken = 0
    for tool, listed in zip(session.toolset.tools, session.toolset.to_json(), strict=True):
        chosen = {"type": "function", "function": {"name": tool.name}}
        body = {"model": "tiny", "messages": ASK, "tools": [listed], "tool_choice": chosen}
        (choice,) = tiny_server.post(body | {"seed": 1}).json()["choices"]
        # Random weights do not end their texts.
        if choice["finish_reason"] != "length":
            (call,) = choice["message"]["tool_calls"]
            arguments = json.loads(call["function"]["arguments"])
            assert satisfies(arguments, tool.parameters), (tool.name, arguments)
            check_call(session, tool.name, arguments)
            n_taken += 1
    assert n_taken > 2


def check_call(session: MCPSession, name: str, arguments: dict[str, Any]) -> None:
    """The server finds nothing wrong with the form of the arguments."""
    try:
        session.call(name, arguments)
    except mcp.ToolFailed as reason:
        # That a file is not there, or a place forbidden, is no matter of form.
        assert "Input validation error" not in str(reason), (name, arguments, str(reason))

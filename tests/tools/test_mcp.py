import asyncio
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from calltune.errors import FetchError, OptionError
from calltune.tools import from_mcp, mcp
from calltune.tools.mcp import ToolFailed

SERVER = Path(__file__).parents[1] / "support" / "mcp_server.py"
COMMAND = shlex.join([sys.executable, str(SERVER)])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a server on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(SERVER), str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
        process.terminate()


def check(server: str) -> None:
    price, is_open, _ = from_mcp(server).tools
    assert price.description == "Tell a price.\n\nOf so many things."
    assert price.parameters["properties"]["count"]["default"] == 1
    assert price.parameters["required"] == ["thing"]
    assert is_open.name == "shop_open"


def test_a_server_is_asked_over_stdio() -> None:
    check(COMMAND)


def test_a_server_is_asked_over_streamable_http(address: str) -> None:
    check(address)


def test_it_can_be_asked_where_a_loop_runs_already(address: str) -> None:
    async def in_a_notebook() -> None:
        check(address)

    asyncio.run(in_a_notebook())


def check_calls(server: str) -> None:
    with mcp.connect(server) as session:
        assert session.call("price", {"thing": "tea", "count": 3}) == {"result": 3.0}
        with pytest.raises(ToolFailed, match="price"):
            session.call("price", {"thing": "nothing"})
        with pytest.raises(ToolFailed, match="no_such_tool"):
            session.call("no_such_tool", {})
        # It goes on after all that, and with the server's own names.
        assert session.call("shop.open", {"day": "today"}) == {"result": True}


def test_tools_are_called_over_stdio() -> None:
    check_calls(COMMAND)


def test_tools_are_called_over_streamable_http(address: str) -> None:
    check_calls(address)


def test_headers_are_sent_with_a_call(address: str) -> None:
    with mcp.connect(address, headers={"X-Key": "ä1".encode().hex()}) as session:
        assert session.call("headers", {})["x-key"] == "ä1".encode().hex()


def test_an_exception_within_a_session_stays_what_it_is() -> None:
    with pytest.raises(KeyError), mcp.connect(COMMAND):
        raise KeyError("mine")


def test_a_silent_tool_is_given_up(address: str) -> None:
    silent = pytest.raises(ToolFailed, match="no answer in 1 s|[Tt]imed out")
    with mcp.connect(address, timeout_s=1) as session, silent:
        session.call("shop.open", {"day": "someday"})


def test_a_server_that_ends_is_a_failure_of_the_tool_and_no_more(tmp_path: Path) -> None:
    code = f"import os, runpy, sys; sys.argv = ['x']; m = runpy.run_path({str(SERVER)!r});"
    code += "m['server'].tool(name='leave')(lambda: os._exit(3)); m['server'].run()"
    with mcp.connect(shlex.join([sys.executable, "-c", code]), timeout_s=20) as session:
        for _ in range(2):
            with pytest.raises(ToolFailed):
                session.call("leave", {})


class Paged:
    """A client of a server that lists one tool a page."""

    def __init__(self, n_pages: float) -> None:
        self._n_pages = n_pages

    async def __aenter__(self) -> "Paged":
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def list_tools(self, cursor: str | None) -> Any:
        page = int(cursor or 0)
        tool = SimpleNamespace(name=f"t{page}", description=None, input_schema={"type": "object"})
        after = str(page + 1) if page + 1 < self._n_pages else None
        return SimpleNamespace(tools=[tool], next_cursor=after)


def test_every_page_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "_client", lambda *_: Paged(3))
    assert [tool.name for tool in from_mcp("any").tools] == ["t0", "t1", "t2"]


def test_pages_without_end_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "_client", lambda *_: Paged(float("inf")))
    with pytest.raises(FetchError, match="more than 1,000 pages"):
        from_mcp("any")


@pytest.mark.parametrize(
    ("server", "timeout_s", "message"),
    [
        ("no-such-program-at-all --x", 60, "No such file"),
        (f"{sys.executable} -c 'raise OSError(7)'", 60, "it wrote: OSError: 7"),
        (f"{sys.executable} -c 'import time; time.sleep(60)'", 1, "no answer in 1 s"),
        ("http://127.0.0.1:9/mcp", 60, "No tools from http://127.0.0.1:9/mcp ("),
    ],
    ids=["no program", "ends at once", "silent", "nobody there"],
)
def test_a_server_that_does_not_answer_is_one_line(
    server: str, timeout_s: float, message: str
) -> None:
    with pytest.raises(FetchError) as raised:
        from_mcp(server, timeout_s)
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("server", ["", "'open"])
def test_what_is_no_command_is_one_line(server: str) -> None:
    with pytest.raises(OptionError, match="No command"):
        from_mcp(server)


def test_without_the_client_the_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(OptionError, match='install it with python -m pip install "mcp>=2"'):
        from_mcp(COMMAND)


def test_a_tool_that_breaks_the_protocol_costs_no_more_than_itself() -> None:
    odd = shlex.join([sys.executable, str(SERVER.with_name("odd_mcp_server.py"))])
    with mcp.connect(odd) as session:
        found = {tool.name: list(tool.parameters["properties"]) for tool in session.toolset.tools}
        assert found == {
            "good": ["a"],
            "no_type": ["a"],
            "no_schema": [],
            "null_schema": [],
            "odd_output": [],
            "anthropic": ["b"],
        }
        left_out = [note.tool for note in session.toolset.notes if note.is_loss]
        assert left_out == ["text_schema", "tool 6", "tool 9"]
        for name in ("good", "anthropic", "odd_output"):
            assert session.call(name, {"a": 1}) == '{"a": 1}'

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

SERVER = Path(__file__).with_name("mcp_server.py")
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
    price, is_open = from_mcp(server).tools
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

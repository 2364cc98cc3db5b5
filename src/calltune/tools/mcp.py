"""Tools of an MCP server, asked over stdio or streamable HTTP with the official client."""

import asyncio
import inspect
import os
import shlex
import tempfile
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TextIO

from calltune.calls import Json
from calltune.errors import FetchError, OptionError
from calltune.tools.openai import read_tool
from calltune.tools.toolset import Draft, Note, Toolset, assembled

if TYPE_CHECKING:
    from mcp import Client, Tool

_MOST_PAGES = 1_000


def from_mcp(server: str, timeout_s: float = 30.0) -> Toolset:
    """The tools that a server lists, all pages of them; none is called.

    `server` is an `http(s)://` address, or a command that is run with this environment and ended.

    Raises:
        OptionError: the client is not installed, or the command is none.
        FetchError: the server cannot be started or reached, is silent for `timeout_s` seconds in
            all, or answers with an error.
    """
    _check_installed()
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        try:
            listed = _finished(_listed(server, timeout_s, said))
        except OptionError:
            raise
        except Exception as error:
            # The client, its transports and anyio's groups each raise their own.
            raise FetchError(
                f"No tools from {server} ({_reason(error, timeout_s)}{_last_line(said)}); "
                "check that the server runs"
            ) from error
    drafts: list[Draft] = []
    notes: list[Note] = []
    for number, written in enumerate(listed, start=1):
        drafts += read_tool(written, f"tool {number}", notes)
    return assembled(drafts, notes)


def _check_installed() -> None:
    try:
        from mcp import Client  # noqa: F401
    except ImportError as error:
        raise OptionError(
            f'Cannot use the MCP client ({error}); install it with python -m pip install "mcp>=2"'
        ) from error


def _finished(coroutine: Coroutine[Any, Any, list[Json]]) -> list[Json]:
    """What a coroutine gives, also where a loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


async def _listed(server: str, timeout_s: float, said: TextIO) -> list[Json]:
    async with asyncio.timeout(timeout_s), _client(server, said) as client:
        tools: list[Json] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            tools += [_written(tool) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                return tools
    raise ValueError(f"more than {_MOST_PAGES:,} pages of tools")


def _written(tool: "Tool") -> Json:
    # Servers in Python send docstrings as they are indented.
    description = inspect.cleandoc(tool.description or "")
    return {"name": tool.name, "description": description, "parameters": tool.input_schema}


def _client(server: str, said: TextIO) -> "Client":
    from mcp import Client, StdioServerParameters, stdio_client

    if server.startswith(("http://", "https://")):
        return Client(server)
    try:
        command, *arguments = shlex.split(server)
    except ValueError as error:
        raise OptionError(f"No command {server!r} ({error}); give a program to run") from None
    parameters = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
    return Client(stdio_client(parameters, errlog=said))


def _reason(error: BaseException, timeout_s: float) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"no answer in {timeout_s:g} s"
    return " ".join(str(error).split()) or type(error).__name__


def _last_line(said: TextIO) -> str:
    """The last thing that the server wrote to its standard error."""
    said.seek(0)
    lines = [line.strip() for line in said.read().splitlines() if line.strip()]
    return f"; it wrote: {lines[-1]}" if lines else ""

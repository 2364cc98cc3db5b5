"""An MCP server's tools, listed and called over stdio or HTTP with the official client."""

import asyncio
import inspect
import os
import shlex
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from calltune.errors import FetchError, OptionError
from calltune.tools.openai import read_tool
from calltune.tools.toolset import Note, ToolDraft, Toolset, build_toolset
from calltune.types import Json

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal
    from mcp import Client, Tool
    from mcp.types import CallToolResult

_MAX_PAGES = 1_000
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class ToolFailed(Exception):
    """A tool that was called failed; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Session:
    """A server that is being talked to."""

    toolset: Toolset
    """What it listed, all pages of it."""
    call: Callable[[str, dict[str, Json]], Json]
    """What a tool returns, called by the name that the server gave it.

    Raises:
        ToolFailed: the tool says so, or the server is silent for too long, gone, or refuses.
    """


def from_mcp(
    server: str, timeout_s: float = 30.0, headers: Mapping[str, str] = _NO_HEADERS
) -> Toolset:
    """The tools that a server lists; none is called, and the server is left again.

    Raises:
        OptionError: as `opened`.
        FetchError: as `opened`.
    """
    with opened(server, timeout_s, headers) as session:
        return session.toolset


@contextmanager
def opened(
    server: str, timeout_s: float = 30.0, headers: Mapping[str, str] = _NO_HEADERS
) -> Iterator[Session]:
    """A session with a server, in a thread of its own, also where a loop runs already.

    `server` is an `http(s)://` address, which is sent `headers` with every request, or a command
    that is run with this environment and ended. It has `timeout_s` seconds for its list of tools,
    and as many for each call.

    Raises:
        OptionError: the client is not installed, or the command is none.
        FetchError: the server cannot be started or reached, is silent, or answers with an error.
    """
    _check_installed()
    from anyio.from_thread import start_blocking_portal

    stack = ExitStack()
    # Closed by hand: an exception of the caller's would come back in groups of the transport's.
    with tempfile.TemporaryFile("w+", errors="replace") as said, closing(stack):
        try:
            portal = stack.enter_context(start_blocking_portal())
            connecting = _connected(_client(server, said, headers), timeout_s)
            found = stack.enter_context(portal.wrap_async_context_manager(connecting))
        except OptionError:
            raise
        except Exception as error:
            # The client, its transports and anyio's groups each raise their own.
            raise FetchError(
                f"No tools from {server} ({_reason(error, timeout_s)}{_last_line(said)}); "
                "check that the server runs"
            ) from error
        yield Session(_toolset(found.listed), partial(_call, portal, found.client, timeout_s))


def _check_installed() -> None:
    try:
        from mcp import Client  # noqa: F401
    except ImportError as error:
        raise OptionError(
            f'Cannot use the MCP client ({error}); install it with python -m pip install "mcp>=2"'
        ) from error


class _Connection(NamedTuple):
    client: "Client"
    listed: list[Json]


@asynccontextmanager
async def _connected(client: "Client", timeout_s: float) -> AsyncIterator[_Connection]:
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(timeout_s):
            entered = await stack.enter_async_context(client)
            listed = await _listed(entered)
        yield _Connection(entered, listed)


async def _listed(client: "Client") -> list[Json]:
    tools: list[Json] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += [_written(tool) for tool in page.tools]
        cursor = page.next_cursor
        if cursor is None:
            return tools
    raise ValueError(f"more than {_MAX_PAGES:,} pages of tools")


def _written(tool: "Tool") -> Json:
    # Servers in Python send docstrings as they are indented.
    description = inspect.cleandoc(tool.description or "")
    return {"name": tool.name, "description": description, "parameters": tool.input_schema}


def _toolset(listed: list[Json]) -> Toolset:
    drafts: list[ToolDraft] = []
    notes: list[Note] = []
    for number, written in enumerate(listed, start=1):
        drafts += read_tool(written, f"tool {number}", notes)
    return build_toolset(drafts, notes)


def _call(
    portal: "BlockingPortal",
    client: "Client",
    timeout_s: float,
    name: str,
    arguments: dict[str, Json],
) -> Json:
    calling = portal.start_task_soon(partial(client.call_tool, name, arguments, timeout_s))
    try:
        result = calling.result()
    except Exception as error:
        raise ToolFailed(_reason(error, timeout_s)) from error
    finally:
        # Where the user interrupted the waiting.
        calling.cancel()
    if result.is_error:
        raise ToolFailed(str(_returned(result)))
    return _returned(result)


def _returned(result: "CallToolResult") -> Json:
    """The value that a tool returned; or its text, where what is no text is only named."""
    if result.structured_content is not None:
        return result.structured_content
    parts = [getattr(part, "text", None) or f"[{part.type}]" for part in result.content]
    return "\n".join(parts)


def _client(server: str, said: TextIO, headers: Mapping[str, str]) -> "Client":
    from mcp import Client, StdioServerParameters, stdio_client

    if server.startswith(("http://", "https://")):
        return Client(_over_http(server, headers)) if headers else Client(server)
    try:
        command, *arguments = shlex.split(server)
    except ValueError as error:
        raise OptionError(f"No command {server!r} ({error}); give a program to run") from None
    parameters = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
    return Client(stdio_client(parameters, errlog=said))


@asynccontextmanager
async def _over_http(address: str, headers: Mapping[str, str]) -> AsyncIterator[Any]:
    from httpx2 import AsyncClient, Timeout
    from mcp.client.streamable_http import streamable_http_client

    # A server may hold a stream of answers open for long.
    async with (
        AsyncClient(headers=dict(headers), timeout=Timeout(30.0, read=300.0)) as http,
        streamable_http_client(address, http_client=http) as streams,
    ):
        yield streams


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

"""MCP servers as a tool source: tools listed and called over stdio or HTTP, by the official client.

Source: Model Context Protocol, https://modelcontextprotocol.io/specification (tools/list,
tools/call).
"""

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
from calltune.tools.mcp_listing import ListedTools
from calltune.tools.openai import from_openai
from calltune.tools.toolset import Toolset
from calltune.types import Json

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal
    from mcp import Client, Tool
    from mcp.types import CallToolResult

_MAX_PAGES = 1_000
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class ToolFailed(Exception):
    """A call of a tool failed; the message is the server's."""


@dataclass(frozen=True, slots=True)
class MCPSession:
    """An open connection to an MCP server."""

    toolset: Toolset
    """Its tools, of all pages of its list."""
    call: Callable[[str, dict[str, Json]], Json]
    """Calls a tool by the server's name for it; what it returns.

    Raises:
        ToolFailed: the tool reports an error, or the server refuses, is gone, or does not answer in
            time.
    """


def from_mcp(
    server: str, timeout_s: float = 30.0, headers: Mapping[str, str] = _NO_HEADERS
) -> Toolset:
    """The tools that a server lists; none is called, and the connection is closed again.

    Raises:
        OptionError: as `connect`.
        FetchError: as `connect`.
    """
    with connect(server, timeout_s, headers) as session:
        return session.toolset


@contextmanager
def connect(
    server: str, timeout_s: float = 30.0, headers: Mapping[str, str] = _NO_HEADERS
) -> Iterator[MCPSession]:
    """A session with a server, in a thread of its own, so that it works within an event loop too.

    Args:
        server: an `http(s)://` address, or a command that is run with this environment and ended.
        timeout_s: seconds that the server has for its list of tools, and again for each call.
        headers: sent with every request to an address.

    Raises:
        OptionError: the client is not installed, or the command cannot be parsed.
        FetchError: the server cannot be started or reached, does not answer in time, or answers
            with an error.
    """
    _check_installed()
    from anyio.from_thread import start_blocking_portal

    stack = ExitStack()
    # Closed by hand: an exception of the caller's would come back in groups of the transport's.
    with tempfile.TemporaryFile("w+", errors="replace") as stderr, closing(stack):
        try:
            portal = stack.enter_context(start_blocking_portal())
            listed = ListedTools()
            client = _client(server, stderr, headers, listed)
            connecting = _connected(client, timeout_s, listed)
            found = stack.enter_context(portal.wrap_async_context_manager(connecting))
        except OptionError:
            raise
        except Exception as error:
            # The client, its transports and anyio's groups each raise their own.
            raise FetchError(
                f"No tools from {server} ({_reason(error, timeout_s)}{_last_line(stderr)}); "
                "check that the server runs"
            ) from error
        yield MCPSession(from_openai(found.listed), partial(_call, portal, found.client, timeout_s))


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
async def _connected(
    client: "Client", timeout_s: float, listed: ListedTools
) -> AsyncIterator[_Connection]:
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(timeout_s):
            entered = await stack.enter_async_context(client)
            tools = await _all_tools(entered, listed)
        yield _Connection(entered, tools)


async def _all_tools(client: "Client", listed: ListedTools) -> list[Json]:
    tools: list[Json] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        written = listed.last_page({tool.name for tool in page.tools})
        tools += [_cleaned(tool) for tool in written or map(_to_json, page.tools)]
        cursor = page.next_cursor
        if cursor is None:
            return tools
    raise ValueError(f"more than {_MAX_PAGES:,} pages of tools")


def _to_json(tool: "Tool") -> Json:
    return {
        "name": tool.name,
        "description": tool.description or "",
        "parameters": tool.input_schema,
    }


def _cleaned(tool: Json) -> Json:
    if not isinstance(tool, dict) or not isinstance(text := tool.get("description"), str):
        return tool
    # Servers in Python send docstrings as they are indented.
    return tool | {"description": inspect.cleandoc(text)}


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
    """The structured value that a tool returned, else its text, with [type] for other content."""
    if result.structured_content is not None:
        return result.structured_content
    parts = [getattr(part, "text", None) or f"[{part.type}]" for part in result.content]
    return "\n".join(parts)


def _client(
    server: str, stderr: TextIO, headers: Mapping[str, str], listed: ListedTools
) -> "Client":
    from mcp import Client, StdioServerParameters, stdio_client

    if server.startswith(("http://", "https://")):
        return Client(listed.over(_over_http(server, headers)))
    try:
        command, *arguments = shlex.split(server)
    except ValueError as error:
        raise OptionError(f"No command {server!r} ({error}); give a program to run") from None
    parameters = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
    return Client(listed.over(stdio_client(parameters, errlog=stderr)))


@asynccontextmanager
async def _over_http(address: str, headers: Mapping[str, str]) -> AsyncIterator[Any]:
    from httpx2 import AsyncClient, Timeout
    from mcp.client.streamable_http import streamable_http_client

    if not headers:
        async with streamable_http_client(address) as streams:
            yield streams
        return
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


def _last_line(stderr: TextIO) -> str:
    """The last line that the server wrote to its standard error, for a message."""
    stderr.seek(0)
    lines = [line.strip() for line in stderr.read().splitlines() if line.strip()]
    return f"; it wrote: {lines[-1]}" if lines else ""

"""MCP servers' lists of tools as they were written, where the client would refuse them.

The client checks each answer against the protocol's types, and one tool that breaks them costs the
whole list. So a tool that does is shown to it with a plain schema, and kept here as it was.

Source: Model Context Protocol, https://modelcontextprotocol.io/specification (tools/list); Python
SDK, the transports of `mcp.client`.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from calltune.types import Json


class ListedTools:
    """The pages of tools that a server has listed, in order, each tool as it was written."""

    def __init__(self) -> None:
        self.pages: list[list[Json]] = []

    @asynccontextmanager
    async def over(self, transport: AbstractAsyncContextManager[Any]) -> AsyncIterator[Any]:
        """The transport, with the lists that come through it kept and made sound."""
        async with transport as (reading, writing):
            yield _SoundStream(reading, self), writing

    def keep(self, tools: list[Json]) -> list[Json]:
        """Keep a page as it is; the tools of it that have a name, as the client accepts them."""
        self.pages.append(tools)
        return [_sound(tool) for tool in tools if _name(tool)]

    def last_page(self, names: set[str]) -> list[Json]:
        """The last page without the named tools that the client did not take."""
        page = self.pages[-1] if self.pages else []
        return [tool for tool in page if not _name(tool) or _name(tool) in names]


class _SoundStream:
    """A stream of messages, of which lists of tools are made sound."""

    def __init__(self, stream: Any, listed: ListedTools) -> None:
        self._stream = stream
        self._listed = listed

    async def receive(self) -> Any:
        return self._checked(await self._stream.receive())

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> "_SoundStream":
        return self

    async def __anext__(self) -> Any:
        return self._checked(await self._stream.__anext__())

    async def __aenter__(self) -> "_SoundStream":
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._stream.__aexit__(*error)

    def __getattr__(self, name: str) -> Any:
        # The client also asks for what streams may have, such as a context.
        return getattr(self._stream, name)

    def _checked(self, item: Any) -> Any:
        result = getattr(getattr(item, "message", None), "result", None)
        if isinstance(result, dict) and isinstance(result.get("tools"), list):
            result["tools"] = self._listed.keep(result["tools"])
        return item


def _name(tool: Json) -> str:
    name = tool.get("name") if isinstance(tool, dict) else None
    return name if isinstance(name, str) else ""


def _sound(tool: dict[str, Json]) -> dict[str, Json]:
    """The tool if the protocol allows it, else one of its name that takes any object."""
    from mcp.types import Tool
    from pydantic import ValidationError

    schema = tool.get("inputSchema")
    plain = {"name": tool["name"], "inputSchema": {"type": "object"}}
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return plain
    if None in (schema.get("required", []), schema.get("properties", {})):
        return plain
    try:
        Tool.model_validate(tool, by_name=False)
    except ValidationError:
        return plain
    return tool

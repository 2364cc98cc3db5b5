"""A small MCP server: stdio, or streamable HTTP where a port is given."""

import sys
import time

from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("shop")


@server.tool()
def price(thing: str, count: int = 1) -> float:
    """Tell a price.

    Of so many things.
    """
    if thing == "nothing":
        raise ValueError("nothing has no price")
    return 1.0 * count


@server.tool(name="shop.open")
def is_open(day: str) -> bool:
    """Whether the shop is open."""
    if day == "someday":
        time.sleep(8)
    return True


@server.tool()
def headers(context: Context) -> dict[str, str]:
    """What it was sent beside."""
    return dict(context.request_context.request.headers)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()

"""A small MCP server: stdio, or streamable HTTP where a port is given."""

import sys

from mcp.server.mcpserver import MCPServer

server = MCPServer("shop")


@server.tool()
def price(thing: str, count: int = 1) -> float:
    """Tell a price.

    Of so many things.
    """
    return 1.0


@server.tool(name="shop.open")
def is_open(day: str) -> bool:
    """Whether the shop is open."""
    return True


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()

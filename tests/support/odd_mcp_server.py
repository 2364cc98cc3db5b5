"""An MCP server over stdio, by hand, whose list of tools breaks the protocol in many ways."""

import json
import sys
from typing import Any

TOOLS: list[Any] = [
    {"name": "good", "inputSchema": {"type": "object", "properties": {"a": {"type": "string"}}}},
    {"name": "no_type", "inputSchema": {"properties": {"a": {}}, "required": None}},
    {"name": "no_schema"},
    {"name": "null_schema", "inputSchema": None},
    {"name": "text_schema", "inputSchema": "x"},
    {"description": "Without a name.", "inputSchema": {"type": "object"}},
    {"name": "odd_output", "inputSchema": {"type": "object"}, "outputSchema": 3},
    {"name": "anthropic", "input_schema": {"type": "object", "properties": {"b": {}}}},
    3,
]


def answer(method: str, parameters: dict[str, Any]) -> dict[str, Any] | None:
    match method:
        case "initialize":
            return {
                "protocolVersion": parameters["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "odd", "version": "1"},
            }
        case "tools/list":
            return {"tools": TOOLS}
        case "tools/call":
            return {"content": [{"type": "text", "text": json.dumps(parameters["arguments"])}]}
    return None


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" not in asked:
            continue
        result = answer(asked["method"], asked.get("params", {}))
        error = {"error": {"code": -32601, "message": "no such method"}}
        said = error if result is None else {"result": result}
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **said}), flush=True)

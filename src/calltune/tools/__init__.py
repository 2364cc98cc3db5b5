"""Tools: what people have (functions, OpenAPI, MCP, OpenAI's lists) as one list of `Tool`s."""

from calltune.tools.functions import from_functions
from calltune.tools.mcp import from_mcp
from calltune.tools.openai import from_openai
from calltune.tools.openapi import from_openapi
from calltune.tools.python_file import from_python_file
from calltune.tools.toolset import Note, Toolset, merge_toolsets

__all__ = [
    "Note",
    "Toolset",
    "merge_toolsets",
    "from_functions",
    "from_mcp",
    "from_openai",
    "from_openapi",
    "from_python_file",
]

"""Tools: what people have (functions, OpenAPI, MCP, OpenAI's lists) as one list of `Tool`s."""

from calltune.tools.openai import from_openai
from calltune.tools.toolset import Note, Toolset, combined

__all__ = [
    "Note",
    "Toolset",
    "combined",
    "from_openai",
]

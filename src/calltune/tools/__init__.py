"""Tool sources: Python functions, OpenAPI, MCP servers and OpenAI's lists as sets of `Tool`s.

To add one, write a file like `openai.py` whose function returns `build_toolset(drafts, notes)`, and
have `sources.py` recognise it on the command line.
"""

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

"""The tools command: functions, OpenAPI, MCP servers and OpenAI's lists -> one tools.json."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from calltune.errors import DataError, OptionError
from calltune.files import write_json


@dataclass(frozen=True, slots=True)
class ToolsOptions:
    """Options of `calltune tools`."""

    sources: tuple[str, ...]
    """FILE.py (all its public functions; it is run) or FILE.py:NAME,NAME; an OpenAPI document in
    .json or .yaml; "mcp:COMMAND ARGUMENTS" or the http(s) address of an MCP server; a .json file
    with OpenAI's list of tools."""

    output: Path = field(default=Path("tools.json"), kw_only=True)
    """The file to write: OpenAI's list of tools."""

    kind: Literal["auto", "python", "openapi", "mcp", "openai"] = field(
        default="auto", kw_only=True
    )
    """What the sources are; auto looks at them."""

    timeout: float = field(default=30.0, kw_only=True)
    """Seconds that an MCP server has to answer in."""

    header: tuple[str, ...] = field(default=(), kw_only=True)
    """"Name: value", sent to the MCP server at an http(s) address, such as "Authorization: …"."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not self.sources:
            raise OptionError("No sources; name a Python file, an OpenAPI file or an MCP server")
        if not self.timeout > 0:
            raise OptionError(f"--timeout is {self.timeout:g}; give more than 0 seconds")


def run(options: ToolsOptions) -> Path:
    """Write the tools of all sources to a file, and print them with their notes; the file.

    Raises:
        DataError: a source is missing or broken, or there is no tool in any.
        FetchError: an MCP server cannot be reached.
        OptionError: a source of an unknown kind, or the MCP client is not installed.
    """
    from calltune.report.tool_list import print_notes, print_tools
    from calltune.tools import merge_toolsets
    from calltune.tools.sources import mcp_options, read_source

    reach = mcp_options(options.sources, options.timeout, options.header)
    toolset = merge_toolsets([read_source(each, reach, options.kind) for each in options.sources])
    if not toolset.tools:
        print_notes(toolset.notes)
        raise DataError(f"No tool can be made of {', '.join(options.sources)}; nothing is written")
    write_json(options.output, toolset.to_json())
    print_tools(toolset.tools)
    print_notes(toolset.notes)
    print(f"Wrote {options.output}")
    return options.output

"""tools: what people have (functions, OpenAPI, MCP, OpenAI's lists) as one tools.json."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from calltune.errors import DataError, OptionError
from calltune.jsonl import read_json, write_json

if TYPE_CHECKING:
    from calltune.tools import Toolset

Kind = Literal["python", "openapi", "mcp", "openai"]


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

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not self.sources:
            raise OptionError("No sources; name a Python file, an OpenAPI file or an MCP server")
        if not self.timeout > 0:
            raise OptionError(f"--timeout is {self.timeout:g}; give more than 0 seconds")


def run(options: ToolsOptions) -> Path:
    """Write the tools of all sources, print them and what could not be expressed; the file.

    Raises:
        DataError: a source is missing or broken, or no tool can be made.
        FetchError: an MCP server cannot be reached.
        OptionError: a source of no known kind, or the MCP client is not installed.
    """
    from calltune.pages.tool_list import print_notes, print_tools
    from calltune.tools import combined

    toolset = combined([_read(source, options) for source in options.sources])
    if not toolset.tools:
        print_notes(toolset.notes)
        raise DataError(f"No tool can be made of {', '.join(options.sources)}; nothing is written")
    write_json(options.output, toolset.to_json())
    print_tools(toolset.tools)
    print_notes(toolset.notes)
    print(f"Wrote {options.output}")
    return options.output


def _read(source: str, options: ToolsOptions) -> "Toolset":
    from calltune import tools

    match _kind(source) if options.kind == "auto" else options.kind:
        case "python":
            file, names = _file_and_names(source)
            return tools.from_python_file(file, names)
        case "openapi":
            return tools.from_openapi(source)
        case "mcp":
            return tools.from_mcp(source.removeprefix("mcp:").strip(), options.timeout)
        case _:
            return tools.from_openai(source)


def _kind(source: str) -> Kind:
    if source.startswith(("mcp:", "http://", "https://")):
        return "mcp"
    suffix = Path(_file_and_names(source).path).suffix.lower()
    if suffix == ".py":
        return "python"
    if suffix in (".yaml", ".yml"):
        return "openapi"
    if suffix == ".json":
        data = read_json(Path(source))
        is_openapi = isinstance(data, dict) and {"openapi", "swagger"} & data.keys()
        return "openapi" if is_openapi else "openai"
    raise OptionError(
        f"{source} is neither a .py, .json or .yaml file, mcp:COMMAND nor an http(s) address; "
        f"say what it is with --kind {', '.join(get_args(Kind))}"
    )


class _File(NamedTuple):
    path: str
    names: tuple[str, ...]


def _file_and_names(source: str) -> _File:
    """A Python file and what stands behind it, `file.py:name1,name2`."""
    file, _, names = source.rpartition(":")
    if not file.lower().endswith(".py"):
        return _File(source, ())
    return _File(file, tuple(name.strip() for name in names.split(",") if name.strip()))

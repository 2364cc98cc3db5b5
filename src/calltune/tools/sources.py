"""Tool sources as the command line names them: their tools, and what runs calls to these."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from calltune.errors import OptionError
from calltune.files import read_json
from calltune.tools import mcp
from calltune.tools.functions import from_named_functions
from calltune.tools.openai import from_openai
from calltune.tools.openapi import from_openapi
from calltune.tools.python_file import functions_in, run_function
from calltune.tools.toolset import Toolset, merge_toolsets, tool_drafts
from calltune.types import Json

SourceKind = Literal["auto", "python", "openapi", "mcp", "openai"]
ToolRunner = Callable[[dict[str, Json]], Json]
"""Runs a tool: arguments -> what it returns as JSON; raises what the tool raises."""


class MCPOptions(NamedTuple):
    """How MCP servers are reached."""

    timeout_s: float = 30.0
    headers: Mapping[str, str] = {}
    """For the server at an http(s) address."""


class RunnableTools(NamedTuple):
    """Tools, and what runs calls to them."""

    toolset: Toolset
    runs: dict[str, ToolRunner]
    """By the tool's name here; tools that cannot be run (OpenAPI, OpenAI's lists) are not in it."""


def mcp_options(sources: Sequence[str], timeout_s: float, headers: Sequence[str]) -> MCPOptions:
    """The MCP options that command-line options describe, headers as `Name: value`.

    Raises:
        OptionError: a header is malformed, or there is not exactly one server that it could go to.
    """
    found: dict[str, str] = {}
    for header in headers:
        name, colon, value = header.partition(":")
        if not (colon and name.strip() and value.strip() and header.isprintable()):
            raise OptionError(f'--header {name}… is not a header; give "Name: value"')
        found[name.strip()] = value.strip()
    addresses = {source for source in sources if "://" in source.removeprefix("mcp:")[:10]}
    if found and len(addresses) != 1:
        raise OptionError(
            f"--header goes to one MCP server, and there are {len(addresses)} http(s) addresses; "
            "name one"
        )
    return MCPOptions(timeout_s, found)


def read_source(source: str, options: MCPOptions, kind: SourceKind = "auto") -> Toolset:
    """The tools of one source; a connection to a server is closed again.

    Raises:
        DataError: it is missing or broken.
        FetchError: an MCP server cannot be reached.
        OptionError: it is of no known kind, or the MCP client is not installed.
    """
    with ExitStack() as stack:
        return _open(source, options, kind, stack).toolset


def open_sources(sources: Sequence[str], options: MCPOptions, stack: ExitStack) -> RunnableTools:
    """The tools of all sources together; `stack` closes the connections to servers.

    Raises:
        DataError: as `read_source`.
        FetchError: as `read_source`.
        OptionError: as `read_source`.
    """
    offers = [_open(source, options, "auto", stack) for source in sources]
    whole = merge_toolsets([offer.toolset for offer in offers])
    distinct: list[Json] = []
    runs: list[ToolRunner | None] = []
    for offer in offers:
        for tool, draft in zip(offer.toolset.tools, tool_drafts(offer.toolset), strict=True):
            # As in `merge_toolsets`: equal drafts are kept once.
            if draft not in distinct:
                distinct.append(draft)
                runs.append(offer.runs.get(tool.name))
    by_name = zip(whole.tools, runs, strict=True)
    return RunnableTools(whole, {tool.name: run for tool, run in by_name if run is not None})


def _open(source: str, options: MCPOptions, kind: SourceKind, stack: ExitStack) -> RunnableTools:
    match _kind(source) if kind == "auto" else kind:
        case "python":
            file, names = _file_and_names(source)
            functions = functions_in(file, names)
            return _offer(
                from_named_functions(functions.items()),
                lambda name: lambda arguments: run_function(functions[name], arguments),
            )
        case "mcp":
            server = source.removeprefix("mcp:").strip()
            headers = options.headers if "://" in server[:10] else {}
            session = stack.enter_context(mcp.connect(server, options.timeout_s, headers))
            return _offer(
                session.toolset, lambda name: lambda arguments: session.call(name, arguments)
            )
        case "openapi":
            return RunnableTools(from_openapi(source), {})
        case _:
            return RunnableTools(from_openai(source), {})


def _offer(toolset: Toolset, run_of: Callable[[str], ToolRunner]) -> RunnableTools:
    """The toolset with what runs each tool, given its original name."""
    return RunnableTools(
        toolset, {n: run_of(original) for n, original in toolset.original_names.items()}
    )


def _kind(source: str) -> SourceKind:
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
        f"say what it is with --kind {', '.join(get_args(SourceKind)[1:])}"
    )


class _File(NamedTuple):
    path: str
    names: tuple[str, ...]


def _file_and_names(source: str) -> _File:
    """A Python file and the names after it, `file.py:name1,name2`."""
    file, _, names = source.rpartition(":")
    if not file.lower().endswith(".py"):
        return _File(source, ())
    return _File(file, tuple(name.strip() for name in names.split(",") if name.strip()))

"""call: one question to a model with tools; prints its calls as JSON."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from calltune.errors import OptionError
from calltune.files import dumps
from calltune.models.options import CallerOptions, check_minimums
from calltune.terminal_text import escape_line


@dataclass(frozen=True)
class QueryArgument:
    """The command's argument. Fields of the last base class come first, and so must arguments."""

    __slots__ = ()

    query: str
    """The question to ask."""


@dataclass(frozen=True, slots=True)
class CallOptions(CallerOptions, QueryArgument):
    """Options of `calltune call`."""

    tools: Path = field(default=Path("tools.json"), kw_only=True)
    """File with the tools on offer, as `calltune tools` writes it."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not self.query.strip():
            raise OptionError("The question is empty; ask something")
        check_minimums(self, max_tokens=1)


def run(options: CallOptions) -> Path:
    """Print the calls that the model makes as a JSON list, and run none; the tools' file.

    Raises:
        DataError: the tools are missing or broken.
        ModelNotFound: there is no such model or adapter.
        OptionError: question and tools are longer than the model's context.
        UnusableAnswer: the answer cannot be parsed, or a call does not satisfy its schema.
    """
    from calltune.report.tool_list import print_notes
    from calltune.tools import from_openai

    toolset = from_openai(options.tools)
    # What is printed can be piped on: it is JSON and nothing else.
    print_notes(toolset.notes, sys.stderr)

    from calltune.agent.caller import Caller

    caller = Caller.from_options(options)
    answer = caller.ask(options.query, toolset)
    for note in answer.notes:
        print(f"  note: {escape_line(note)}", file=sys.stderr)
    print(dumps([{"name": call.name, "arguments": call.arguments} for call in answer.calls]))
    if not answer.calls:
        print("The model calls nothing.", file=sys.stderr)
    return options.tools

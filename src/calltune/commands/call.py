"""call: one question to a model that has tools; its calls as JSON."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from calltune.errors import OptionError


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options of `calltune call`."""

    query: str
    """What the user asks."""
    tools: Path = field(default=Path("tools.json"), kw_only=True)
    """The tools on offer, as `calltune tools` writes them."""
    model: str | None = field(default=None, kw_only=True)
    """The base model; the one that the adapter was trained on unless given."""
    adapter_path: Path | None = field(default=None, kw_only=True)
    """Folder of the adapter."""
    format: str | None = field(default=None, kw_only=True)
    """Prompt family: gemma or chatml; unless given, the one whose tokens the model has."""
    max_tokens: int = field(default=512, kw_only=True)
    """Longest answer, in tokens."""
    device: Literal["auto", "cpu", "gpu"] = field(default="auto", kw_only=True)
    """Where to compute."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not self.query.strip():
            raise OptionError("The question is empty; ask something")
        if self.max_tokens < 1:
            raise OptionError(f"--max_tokens is {self.max_tokens}; it must be at least 1")


def run(options: CallOptions) -> Path:
    """Print the calls that the model makes as a JSON list; nothing is run. The tools' file.

    Raises:
        DataError: no tools.
        ModelNotFound: no such model or adapter.
        UnusableAnswer: the answer cannot be read, or does not keep to the schemas.
    """
    from calltune.agent.caller import Caller
    from calltune.files import dumps
    from calltune.report.tool_list import print_notes
    from calltune.tools import from_openai

    toolset = from_openai(options.tools)
    # What is printed can be piped on: it is JSON and nothing else.
    print_notes(toolset.notes, sys.stderr)
    caller = Caller(
        options.model,
        options.adapter_path,
        format=options.format,
        max_tokens=options.max_tokens,
        device=options.device,
    )
    calls = caller.call(options.query, toolset)
    print(dumps([{"name": call.name, "arguments": call.arguments} for call in calls]))
    if not calls:
        print("The model calls nothing.", file=sys.stderr)
    return options.tools

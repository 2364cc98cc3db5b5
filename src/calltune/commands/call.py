"""call: one question to a model that has tools; its calls as JSON."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from calltune.errors import OptionError
from calltune.models.options import (
    BaseModelOption,
    DeviceOption,
    FormatOption,
    MaxTokensOption,
    OptionalAdapterOption,
    check_minimums,
)


@dataclass(frozen=True, slots=True)
class CallOptions(
    DeviceOption, MaxTokensOption, FormatOption, OptionalAdapterOption, BaseModelOption
):
    """Options of `calltune call`."""

    query: str
    """The question to ask."""
    tools: Path = field(default=Path("tools.json"), kw_only=True)
    """File with the tools on offer, as `calltune tools` writes it."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not self.query.strip():
            raise OptionError("The question is empty; ask something")
        check_minimums(self, max_tokens=1)


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

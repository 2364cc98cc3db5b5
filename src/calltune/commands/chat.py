"""chat: a conversation with a model whose calls are run, each after it was confirmed."""

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from calltune.errors import OptionError
from calltune.models.options import (
    BaseModelOption,
    DeviceOption,
    FormatOption,
    MaxTokensOption,
    OptionalAdapterOption,
    check_minimums,
)
from calltune.types import Json, Message, ToolCall

if TYPE_CHECKING:
    from calltune.agent.dialogue import Speaker
    from calltune.report.chat import Screen
    from calltune.tools.sources import RunnableTools

DECLINED: Json = {"error": "The user declined this call."}
NO_RESULT: Json = {"error": "There is no result: nothing here runs this tool."}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions(
    DeviceOption, MaxTokensOption, FormatOption, OptionalAdapterOption, BaseModelOption
):
    """Options of `calltune chat`."""

    tools: tuple[str, ...] = ("tools.json",)
    """Sources as `calltune tools` takes them. Functions of a Python file and tools of an MCP server
    are run; for those of OpenAPI documents and lists you are asked what they return."""
    system: str = ""
    """What the model is told before the conversation."""
    words: Literal["base", "tuned", "none"] = "base"
    """Who answers in words: the base model, for an adapter that was trained on calls has unlearned
    to speak; the tuned one; or nobody, where the base model was never taught to answer."""
    max_rounds: int = 8
    """Most rounds of calls for one question."""
    yes: bool = False
    """Run every call unasked. Where the input is no terminal, calls are else declined."""
    timeout: float = 30.0
    """Seconds that an MCP server has to answer in."""
    header: tuple[str, ...] = ()
    """"Name: value", sent to the MCP server at an http(s) address, such as "Authorization: …"."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_minimums(self, max_rounds=1, max_tokens=1)
        if not self.timeout > 0:
            raise OptionError(f"--timeout is {self.timeout:g}; give more than 0 seconds")


def run(options: ChatOptions) -> Path:
    """Talk until the input ends; the adapter's folder, or the working folder.

    Raises:
        DataError: a source is missing or broken.
        FetchError: an MCP server cannot be reached.
        ModelNotFound: no such model or adapter.
        OptionError: a source of no known kind, or a header that is none.
    """
    from calltune.agent.caller import Caller
    from calltune.report.chat import Screen
    from calltune.report.tool_list import print_notes
    from calltune.tools.sources import mcp_options, open_sources

    reach = mcp_options(options.tools, options.timeout, options.header)
    with ExitStack() as stack:
        offer = open_sources(options.tools, reach, stack)
        print_notes(offer.toolset.notes)
        caller = Caller(
            options.model,
            options.adapter_path,
            format=options.format,
            max_tokens=options.max_tokens,
            device=options.device,
        )
        talk(caller, offer, Screen(), options)
    return options.adapter_path or Path()


def talk(caller: "Speaker", offer: "RunnableTools", screen: "Screen", options: ChatOptions) -> None:
    """Answer questions until there are no more.

    A question that is interrupted with Ctrl-C is forgotten, with what was called for it; `/new`
    forgets all that was said.
    """
    from calltune.agent.dialogue import reply

    host = _Host(offer, screen, options.yes)
    beginning = [Message("system", options.system)] if options.system else []
    messages = beginning
    while (question := _question(screen)) is not None:
        if question == "/new":
            messages = beginning
            continue
        asked = [*messages, Message("user", question)]
        try:
            found = reply(
                caller,
                asked,
                offer.toolset,
                host,
                max_rounds=options.max_rounds,
                words=options.words,
            )
        except KeyboardInterrupt:
            screen.warn("Interrupted; the question is forgotten")
            continue
        if options.words == "none":
            screen.warn("The model calls nothing more" if found.messages else "It calls nothing")
        else:
            screen.show_words(found.words)
        messages = [*asked, *found.messages]


def _question(screen: "Screen") -> str | None:
    while True:
        try:
            return screen.question()
        except KeyboardInterrupt:
            # At the prompt Ctrl-C takes back what was typed.
            continue


class _Host:
    """Runs calls that the user allows."""

    def __init__(self, offer: "RunnableTools", screen: "Screen", is_allowed: bool) -> None:
        self._offer = offer
        self._screen = screen
        self._is_allowed = is_allowed
        self._allowed: set[str] = set()
        self.warn = screen.warn

    def thinking(self) -> AbstractContextManager[object]:
        return self._screen.thinking()

    def run(self, call: ToolCall) -> Json:
        """What the call gives; a refusal, an exception and silence are results as well."""
        self._screen.show_call(self._offer.toolset.original_call(call))
        result = self._result(call)
        self._screen.show_result(result)
        return result

    def _result(self, call: ToolCall) -> Json:
        run = self._offer.runs.get(call.name)
        if run is None:
            told = self._screen.result() if self._screen.is_asked else None
            return NO_RESULT if told is None else told
        if not self._may_run(call.name):
            return DECLINED
        try:
            return run(call.arguments)
        except (Exception, SystemExit) as error:
            # Whatever it is, the model is told, and the conversation goes on.
            return {"error": f"{type(error).__name__}: {error}"}

    def _may_run(self, name: str) -> bool:
        if self._is_allowed or name in self._allowed:
            return True
        if not self._screen.is_asked:
            self._screen.warn("Declined: the input is no terminal; --yes runs calls unasked")
            return False
        consent = self._screen.consent(self._offer.toolset.original_names[name])
        if consent == "always":
            self._allowed.add(name)
        return consent != "no"

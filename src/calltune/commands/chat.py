"""chat: a conversation with a model whose calls are run, each after the user confirms it."""

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from calltune.errors import OptionError
from calltune.models.options import CallerOptions, check_minimums
from calltune.report.chat import Screen
from calltune.types import Json, Message, ToolCall

if TYPE_CHECKING:
    from calltune.agent.dialogue import ChatModel
    from calltune.tools.sources import RunnableTools

DECLINED: Json = {"error": "The user declined this call."}
NO_RESULT: Json = {"error": "There is no result: nothing here runs this tool."}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions(CallerOptions):
    """Options of `calltune chat`."""

    tools: tuple[str, ...] = ("tools.json",)
    """Tools, in any form that `calltune tools` reads. Functions of a Python file and tools of an
    MCP server are run; for tools of an OpenAPI document or a list, you enter the results."""
    system: str = ""
    """System prompt."""
    words: Literal["base", "tuned", "none"] = "base"
    """Which model writes the text answers: base (adapters trained on calls make a model worse at
    text), tuned, or none, for a base model that cannot chat."""
    max_rounds: int = 8
    """Maximum number of rounds of calls for one question."""
    yes: bool = False
    """Run every call without asking. Otherwise calls are declined if the input is not a
    terminal."""
    timeout: float = 30.0
    """Seconds to wait for an answer of an MCP server."""
    header: tuple[str, ...] = ()
    """HTTP header for the MCP server at an http(s) address: "Name: value", for example
    "Authorization: …"."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_minimums(self, max_rounds=1, max_tokens=1)
        if not self.timeout > 0:
            raise OptionError(f"--timeout is {self.timeout:g}; give more than 0 seconds")


def run(options: ChatOptions) -> Path:
    """Chat until the input ends; the adapter's folder, or the working folder if there is none.

    Raises:
        DataError: a tool source is missing or broken.
        FetchError: an MCP server cannot be reached.
        ModelNotFound: there is no such model or adapter.
        OptionError: the kind of a tool source is unknown, or a header is malformed.
    """
    from calltune.report.tool_list import print_notes
    from calltune.tools.sources import mcp_options, open_sources

    server = mcp_options(options.tools, options.timeout, options.header)
    with ExitStack() as stack:
        tools = open_sources(options.tools, server, stack)
        print_notes(tools.toolset.notes)

        from calltune.agent.caller import Caller

        talk(Caller.from_options(options), tools, Screen(), options)
    return options.adapter_path or Path()


def talk(model: "ChatModel", tools: "RunnableTools", screen: Screen, options: ChatOptions) -> None:
    """Answer the user's questions until there are no more.

    Ctrl-C drops the current question with its calls; `/new` starts a new conversation.
    """
    from calltune.agent.caller import ContextTooShort
    from calltune.agent.dialogue import reply

    runner = _ConfirmingRunner(tools, screen, options.yes)
    beginning = [Message("system", options.system)] if options.system else []
    messages = beginning
    while (question := _read_question(screen)) is not None:
        if question == "/new":
            messages = beginning
            continue
        asked = [*messages, Message("user", question)]
        try:
            answer = reply(
                model,
                asked,
                tools.toolset,
                runner,
                max_rounds=options.max_rounds,
                text_from=options.words,
            )
        except KeyboardInterrupt:
            screen.warn("Interrupted; this question is dropped")
            continue
        except ContextTooShort as error:
            screen.warn(f"{error}; this question is dropped, and /new starts a new conversation")
            continue
        if options.words == "none":
            screen.warn("The model calls nothing more" if answer.messages else "It calls nothing")
        else:
            screen.show_text(answer.text)
        messages = [*asked, *answer.messages]


def _read_question(screen: Screen) -> str | None:
    while True:
        try:
            return screen.read_question()
        except KeyboardInterrupt:
            # At the prompt, Ctrl-C discards what was typed.
            continue


class _ConfirmingRunner:
    """Runs the calls that the user allows; the `CallRunner` of a chat."""

    def __init__(self, tools: "RunnableTools", screen: Screen, is_allowed: bool) -> None:
        self._tools = tools
        self._screen = screen
        self._is_allowed = is_allowed
        self._always_allowed: set[str] = set()
        self.warn = screen.warn

    def thinking(self) -> AbstractContextManager[object]:
        return self._screen.thinking()

    def run(self, call: ToolCall) -> Json:
        """The call's result; that it was declined, raised an exception or has none is one, too."""
        self._screen.show_call(self._tools.toolset.original_call(call))
        result = self._result(call)
        self._screen.show_result(result)
        return result

    def _result(self, call: ToolCall) -> Json:
        run = self._tools.runs.get(call.name)
        if run is None:
            entered = self._screen.read_result() if self._screen.is_interactive else None
            return NO_RESULT if entered is None else entered
        if not self._may_run(call.name):
            return DECLINED
        try:
            return run(call.arguments)
        except (Exception, SystemExit) as error:
            # The user's function may raise anything; the model is told, and the chat goes on.
            return {"error": f"{type(error).__name__}: {error}"}

    def _may_run(self, name: str) -> bool:
        if self._is_allowed or name in self._always_allowed:
            return True
        if not self._screen.is_interactive:
            self._screen.warn("Declined: the input is not a terminal; --yes runs calls unasked")
            return False
        consent = self._screen.read_consent(self._tools.toolset.original_names[name])
        if consent == "always":
            self._always_allowed.add(name)
        return consent != "no"

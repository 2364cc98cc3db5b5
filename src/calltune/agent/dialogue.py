"""One question of a conversation: run the model's calls, return the results, get a final text."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, Protocol

from calltune.agent.caller import ModelTurn, call_problem
from calltune.files import dumps
from calltune.formats.grammar import OutputSpec
from calltune.formats.parser import call_key
from calltune.tools import Toolset
from calltune.types import Json, Message, ToolCall

TextFrom = Literal["base", "tuned", "none"]
"""Which model writes the final text: the base model, the tuned one, or neither."""


class ChatModel(Protocol):
    """A model that takes turns in a conversation; `Caller` is one."""

    @property
    def has_adapter(self) -> bool:
        """Whether it is a base model with an adapter."""

    def next_turn(
        self, messages: Sequence[Message], tools: Toolset, output: OutputSpec
    ) -> ModelTurn:
        """Its next turn: calls or text."""

    def next_text(self, messages: Sequence[Message], *, use_adapter: bool) -> str:
        """Its next turn as text, with no tools in the prompt."""


class CallRunner(Protocol):
    """Runs calls, and reports to the user what goes on."""

    def run(self, call: ToolCall) -> Json:
        """The result of a valid call, as JSON; that it was declined or failed is a result, too."""

    def thinking(self) -> AbstractContextManager[object]:
        """A context that is open while the model generates."""

    def warn(self, text: str) -> None:
        """Report a problem, in one sentence without a full stop."""


class Reply(NamedTuple):
    """The answer to a question."""

    text: str
    """Empty if none was asked for."""
    messages: tuple[Message, ...]
    """The new messages of the conversation: calls, their results, and the text."""


def reply(
    model: ChatModel,
    messages: Sequence[Message],
    tools: Toolset,
    runner: CallRunner,
    *,
    max_rounds: int,
    text_from: TextFrom = "base",
) -> Reply:
    """Answer the question that the conversation `messages` ends with.

    In each round the model makes calls, which are run and whose results it sees in the next round.
    The rounds end when it makes no call, or only calls that it has already made for this question,
    or after `max_rounds`. Equal calls run once. Invalid calls do not run; the model is told why.

    With `text_from` "base" a model with an adapter only decides on calls, which is what adapters
    are trained for, and its base model writes the text.
    """
    may_write = text_from == "tuned" or (text_from == "base" and not model.has_adapter)
    output = OutputSpec(allows_text=may_write)
    added: list[Message] = []
    results: dict[str, str] = {}
    told: set[str] = set()
    for _ in range(max_rounds):
        with runner.thinking():
            turn = model.next_turn([*messages, *added], tools, output)
        for note in turn.notes:
            if note not in told:
                runner.warn(note)
        told.update(turn.notes)
        if turn.text:
            return _finished(turn.text, added)
        if turn.problem is not None:
            runner.warn(f"The model's calls cannot be read ({turn.problem})")
        if all(call_key(call) in results for call in turn.calls):
            break
        added.append(Message("assistant", "", turn.calls))
        for call in turn.calls:
            if call_key(call) not in results:
                results[call_key(call)] = dumps(_result(call, tools, runner))
            added.append(Message("tool", results[call_key(call)], tool_name=call.name))
    else:
        runner.warn(f"The model called tools in {max_rounds} rounds; now it must answer")
    if text_from == "none":
        return Reply("", tuple(added))
    with runner.thinking():
        text = model.next_text([*messages, *added], use_adapter=text_from == "tuned")
    return _finished(text, added)


def _finished(text: str, added: Sequence[Message]) -> Reply:
    return Reply(text, (*added, Message("assistant", text)))


def _result(call: ToolCall, tools: Toolset, runner: CallRunner) -> Json:
    problem = call_problem(call, {tool.name: tool for tool in tools.tools})
    if problem is None:
        return runner.run(call)
    runner.warn(f"{problem} ({dumps(call.arguments)[:200]}); nothing was run")
    return {"error": f"{problem}."}

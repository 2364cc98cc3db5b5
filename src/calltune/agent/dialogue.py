"""A question in a conversation: calls are run and their results put back, until words come."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, Protocol

from calltune.agent.caller import Turn
from calltune.evaluation.judge import are_valid, invents_function
from calltune.files import dumps
from calltune.formats.grammar import OutputSpec
from calltune.formats.parser import call_key
from calltune.tools import Toolset
from calltune.types import Json, Message, ToolCall

Words = Literal["base", "tuned", "none"]
"""Who says the words, after the calls or instead of them."""


class Speaker(Protocol):
    """The model; `Caller` is one."""

    @property
    def has_adapter(self) -> bool:
        """Whether it was tuned."""

    def turn(self, messages: Sequence[Message], tools: Toolset, wanted: OutputSpec) -> Turn:
        """Its next turn."""

    def words(self, messages: Sequence[Message], *, tuned: bool) -> str:
        """Its next turn in words, with no tools before it."""


class Host(Protocol):
    """What stands between the model and the user."""

    def run(self, call: ToolCall) -> Json:
        """What a call gives, JSON; that it was declined or failed is a result as well.

        Its arguments keep to its tool's schema.
        """

    def thinking(self) -> AbstractContextManager[object]:
        """Entered while the model is at work."""

    def warn(self, text: str) -> None:
        """Say that something went wrong, in one sentence."""


class Reply(NamedTuple):
    """How a question was answered."""

    words: str
    """"" where none are wanted."""
    messages: tuple[Message, ...]
    """What the conversation has more than before: calls, results, and the words."""


def reply(
    model: Speaker,
    messages: Sequence[Message],
    tools: Toolset,
    host: Host,
    *,
    max_rounds: int,
    words: Words = "base",
) -> Reply:
    """Answer the question that the conversation ends with.

    Rounds of calls end where the model calls nothing, or nothing that it has not called since the
    question, or after `most_rounds`. Equal calls are run once. Where the base model says the words,
    an adapter decides on calls alone, for that is what it was trained for.
    """
    wanted = OutputSpec(allows_text=words == "tuned" or (words == "base" and not model.has_adapter))
    added: list[Message] = []
    results: dict[str, str] = {}
    for _ in range(max_rounds):
        with host.thinking():
            turn = model.turn([*messages, *added], tools, wanted)
        if turn.words:
            return _finished(turn.words, added)
        if turn.problem is not None:
            host.warn(f"The model's calls cannot be read ({turn.problem})")
        if all(call_key(call) in results for call in turn.calls):
            break
        added.append(Message("assistant", "", turn.calls))
        for call in turn.calls:
            if call_key(call) not in results:
                results[call_key(call)] = dumps(_result(call, tools, host))
            added.append(Message("tool", results[call_key(call)], tool_name=call.name))
    else:
        host.warn(f"The model has called tools in {max_rounds} rounds; it is to answer now")
    if words == "none":
        return Reply("", tuple(added))
    with host.thinking():
        said = model.words([*messages, *added], tuned=words == "tuned")
    return _finished(said, added)


def _finished(words: str, added: Sequence[Message]) -> Reply:
    return Reply(words, (*added, Message("assistant", words)))


def _result(call: ToolCall, tools: Toolset, host: Host) -> Json:
    by_name = {tool.name: tool for tool in tools.tools}
    if invents_function([call], by_name):
        problem = f"There is no tool {call.name}."
    elif not are_valid([call], by_name):
        problem = f"The arguments of {call.name} do not keep to its schema."
    else:
        return host.run(call)
    host.warn(f"{problem[:-1]} ({dumps(call.arguments)[:200]}); nothing was run")
    return {"error": problem}

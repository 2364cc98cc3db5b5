"""The messages of a chat request as calltune's: results by the side of their calls.

What a client tells of the past is shown to the model as it was: arguments that are no JSON object
and refusals do not end a conversation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from calltune.formats.parser import ParseError, decode_strict
from calltune.serving.errors import APIError
from calltune.serving.request_schema import (
    AnyMessage,
    AssistantMessage,
    CallMade,
    FunctionMessage,
    ToolMessage,
)
from calltune.types import MAX_DEPTH, Message, ToolCall, nesting


def requested_messages(written: Sequence[AnyMessage]) -> tuple[Message, ...]:
    """The messages; results of one turn in the order of its calls, each with its tool's name.

    Raises:
        APIError: a result belongs to no call, or a call has no function (400).
    """
    messages: list[Message] = []
    results = _Results()
    for index, item in enumerate(written):
        match item:
            case ToolMessage():
                results.add(item, f"messages[{index}]")
            case FunctionMessage():
                results.add_function(item)
            case AssistantMessage():
                messages += results.take()
                messages.append(_answer(item, f"messages[{index}]", results))
            case _:
                messages += results.take()
                role = "user" if item.role == "user" else "system"
                messages.append(Message(role, item.content))
    return (*messages, *results.take())


@dataclass(slots=True)
class _OpenCall:
    id: str
    name: str
    is_answered: bool = False


@dataclass(frozen=True, slots=True)
class _Result:
    position: int
    """That of its call among all calls."""
    message: Message


class _Results:
    """The calls so far, and the results that follow the last of them.

    Ids may be used again, by later turns or within one: a result goes to the first call of the
    last turn with its id that has no result yet, else to one of a turn before.
    """

    def __init__(self) -> None:
        self._calls: list[_OpenCall] = []
        self._last_turn = 0
        self._waiting: list[_Result] = []

    def expect(self, calls: Sequence[_OpenCall]) -> None:
        """Begin the results of a new turn."""
        if calls:
            self._last_turn = len(self._calls)
            self._calls += calls

    def take(self) -> list[Message]:
        """The results since the last call of this, in the order of their calls."""
        found = sorted(self._waiting, key=lambda result: result.position)
        self._waiting = []
        return [result.message for result in found]

    def add(self, written: ToolMessage, place: str) -> None:
        position = self._position(written.tool_call_id or "")
        if position is None:
            given = written.tool_call_id
            raise APIError(
                400,
                f"{place}.tool_call_id is {given!r:.80}, and no message before it has a call "
                "with this id",
                f"{place}.tool_call_id",
            )
        call = self._calls[position]
        call.is_answered = True
        self._waiting.append(
            _Result(position, Message("tool", written.content, tool_name=call.name))
        )

    def add_function(self, written: FunctionMessage) -> None:
        """Add a result that is given by the function's name; it may be of a call long gone."""
        named = [i for i, call in enumerate(self._calls) if call.name == written.name]
        unanswered = [i for i in named if not self._calls[i].is_answered]
        position = (unanswered or named[-1:] or [len(self._calls)])[0]
        if position < len(self._calls):
            self._calls[position].is_answered = True
        message = Message("tool", written.content, tool_name=written.name)
        self._waiting.append(_Result(position, message))

    def _position(self, call_id: str) -> int | None:
        last = range(self._last_turn, len(self._calls))
        order = [*last, *reversed(range(self._last_turn))]
        same = [i for i in order if self._calls[i].id == call_id or not call_id]
        unanswered = [i for i in same if not self._calls[i].is_answered]
        # A second result of one call stays beside the first.
        return next(iter(unanswered or same), None)


def _answer(written: AssistantMessage, place: str, results: _Results) -> Message:
    calls = list(written.tool_calls or ())
    if written.function_call is not None:
        calls.append(CallMade(function=written.function_call))
    made = [_call(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(calls)]
    results.expect(
        [_OpenCall(call.id or "", each.name) for call, each in zip(calls, made, strict=True)]
    )
    text = "\n".join(filter(None, (written.content, written.refusal)))
    return Message("assistant", text, tuple(made))


def _call(written: CallMade, place: str) -> ToolCall:
    if written.function is not None:
        return _of_text(written.function.name, written.function.arguments)
    if written.custom is not None:
        return ToolCall(written.custom.name, {}, written.custom.input or '""')
    raise APIError(400, f"{place}.function is missing", f"{place}.function")


def _of_text(name: str, arguments: str) -> ToolCall:
    """The call, with its arguments as they are written where they are no JSON object."""
    text = arguments.strip()
    if not text:
        return ToolCall(name, {})
    try:
        found = decode_strict(text)
    except (ParseError, RecursionError):
        found = None
    if isinstance(found, str):
        # Some clients send the text of broken arguments as JSON once more.
        return ToolCall(name, {}, found or text)
    is_usable = isinstance(found, dict) and nesting(found) <= MAX_DEPTH
    return ToolCall(name, found) if is_usable else ToolCall(name, {}, text)

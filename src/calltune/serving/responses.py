"""Chat responses: collects the answers' events into one response, or streams them as chunks.

Source: https://platform.openai.com/docs/api-reference/chat/streaming, and for server-sent events
https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NamedTuple

from calltune.files import dumps
from calltune.serving.answer_parser import (
    CompletedCall,
    Finished,
    FinishReason,
    SchemaNote,
    TextDelta,
)
from calltune.serving.answers import AnswerEvent, Answers, TokenUsage
from calltune.serving.errors import APIError
from calltune.serving.response_schema import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Delta,
    FunctionCall,
    FunctionCallDelta,
    FunctionToolCall,
    Note,
    ReplyMessage,
    ToolCallDelta,
    Usage,
    to_json,
)
from calltune.serving.response_schema import FinishReason as WrittenReason
from calltune.types import Json, ToolCall

_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class ResponseInfo:
    """What the response and all of its chunks have in common."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    """Unix time in seconds."""
    is_older_spelling: bool = False
    """Whether a call is answered as `function_call`, the predecessor of `tool_calls`."""


async def whole_response(answers: Answers, info: ResponseInfo, seconds: float) -> dict[str, Json]:
    """The response as JSON, once all answers are complete.

    Raises:
        APIError: an answer failed, or was not complete within `seconds`.
    """
    choices: dict[int, _ChoiceBuilder] = {}
    async for item in within(answers.events(), seconds):
        choices.setdefault(item.index, _ChoiceBuilder()).add(item)
    return to_json(
        ChatCompletion(
            id=info.id,
            object="chat.completion",
            created=info.created,
            model=info.model,
            choices=[
                choices[index].build(index, info.is_older_spelling) for index in sorted(choices)
            ],
            usage=_usage(answers.usage),
        )
    )


async def streamed_response(
    answers: Answers, info: ResponseInfo, wants_usage: bool, seconds: float
) -> AsyncGenerator[bytes, None]:
    """The response as server-sent events.

    Raises:
        APIError: an answer failed, or was not complete within `seconds`; see `error_events`.
    """
    started: dict[int, _DeltaBuilder] = {}
    async for item in within(answers.events(), seconds):
        if item.index not in started:
            started[item.index] = _DeltaBuilder(info.is_older_spelling)
        for part in started[item.index].parts(item):
            yield _event(to_json(_chunk(info, item.index, part, wants_usage)))
    if wants_usage:
        yield _event(
            to_json(
                ChatCompletionChunk(
                    id=info.id,
                    object="chat.completion.chunk",
                    created=info.created,
                    model=info.model,
                    choices=[],
                    usage=_usage(answers.usage),
                )
            )
        )
    yield _DONE


def error_events(error: APIError) -> bytes:
    """The end of a stream that an error broke off."""
    return _event(error.body()) + _DONE


async def within(
    events: AsyncGenerator[AnswerEvent, None], seconds: float
) -> AsyncGenerator[AnswerEvent, None]:
    """The same events, if the last one comes within `seconds`.

    Raises:
        APIError: it does not (503).
    """
    end = time.monotonic() + seconds
    async with aclosing(events) as stream:
        while True:
            try:
                async with asyncio.timeout(max(0.0, end - time.monotonic())):
                    item = await anext(stream, None)
            except TimeoutError:
                text = f"The answer was not complete within {seconds:g} seconds"
                raise APIError(503, text, code="timeout") from None
            if item is None:
                return
            yield item


@dataclass(slots=True)
class _ChoiceBuilder:
    """Collects the events of one answer."""

    text: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    reason: FinishReason = "stop"
    note: SchemaNote | None = None

    def add(self, item: AnswerEvent) -> None:
        match item.event:
            case TextDelta(text=text):
                self.text += text
            case CompletedCall(call=call):
                self.calls.append(call)
            case Finished(reason=reason, note=note):
                self.reason, self.note = reason, note

    def build(self, index: int, is_older_spelling: bool) -> Choice:
        content = self.text if self.text or not self.calls else None
        message = ReplyMessage(role="assistant", content=content, refusal=None)
        calls = [tool_call(call) for call in self.calls]
        if calls and is_older_spelling:
            message = message.model_copy(update={"function_call": calls[0].function})
        elif calls:
            message = message.model_copy(update={"tool_calls": calls})
        reason = _reason(self.reason, is_older_spelling)
        choice = Choice(index=index, message=message, logprobs=None, finish_reason=reason)
        return choice if self.note is None else choice.model_copy(update=_noted(self.note))


class _Part(NamedTuple):
    delta: Delta
    reason: WrittenReason | None = None
    note: SchemaNote | None = None


@dataclass(slots=True)
class _DeltaBuilder:
    """Turns the events of one answer into deltas: a call's name comes before its arguments."""

    is_older_spelling: bool
    n_calls: int = 0
    has_begun: bool = False

    def parts(self, item: AnswerEvent) -> list[_Part]:
        match item.event:
            case TextDelta(text=text):
                return [*self._begin(""), _Part(Delta(content=text))]
            case CompletedCall(call=call):
                return [*self._begin(None), *self._call(call)]
            case Finished(reason=reason, note=note):
                written = _reason(reason, self.is_older_spelling)
                return [*self._begin(""), _Part(Delta(), written, note)]

    def _call(self, call: ToolCall) -> list[_Part]:
        made = tool_call(call)
        index, self.n_calls = self.n_calls, self.n_calls + 1
        name = FunctionCallDelta(name=call.name, arguments="")
        arguments = FunctionCallDelta(arguments=made.function.arguments)
        if self.is_older_spelling:
            return [_Part(Delta(function_call=part)) for part in (name, arguments)]
        first = ToolCallDelta(index=index, id=made.id, type=made.type, function=name)
        rest = ToolCallDelta(index=index, function=arguments)
        return [_Part(Delta(tool_calls=[part])) for part in (first, rest)]

    def _begin(self, content: str | None) -> list[_Part]:
        if self.has_begun:
            return []
        self.has_begun = True
        return [_Part(Delta(role="assistant", content=content))]


def tool_call(call: ToolCall) -> FunctionToolCall:
    """A call as OpenAI's API writes it, with an id of its own."""
    function = FunctionCall(name=call.name, arguments=dumps(call.arguments))
    call_id = f"call_{secrets.token_hex(12)}"
    return FunctionToolCall(id=call_id, type="function", function=function)


def _noted(note: SchemaNote) -> dict[str, Note]:
    return {"note": Note(type=note.type, message=note.message)}


def _reason(reason: FinishReason, is_older_spelling: bool) -> WrittenReason:
    return "function_call" if is_older_spelling and reason == "tool_calls" else reason


def _usage(usage: TokenUsage) -> Usage:
    return Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


def _chunk(info: ResponseInfo, index: int, part: _Part, wants_usage: bool) -> ChatCompletionChunk:
    choice = ChunkChoice(index=index, delta=part.delta, logprobs=None, finish_reason=part.reason)
    if part.note is not None:
        choice = choice.model_copy(update=_noted(part.note))
    chunk = ChatCompletionChunk(
        id=info.id,
        object="chat.completion.chunk",
        created=info.created,
        model=info.model,
        choices=[choice],
    )
    # With usage wanted, all chunks have the field, and only the last one a value.
    return chunk.model_copy(update={"usage": None}) if wants_usage else chunk


def _event(data: Json) -> bytes:
    return f"data: {dumps(data)}\n\n".encode()

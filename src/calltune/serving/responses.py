"""Answers as OpenAI's JSON: whole, or in the chunks of a stream.

Source: https://platform.openai.com/docs/api-reference/chat/object and …/chat/streaming.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from calltune.files import dumps
from calltune.serving.answer_parser import Called, Ended, Words
from calltune.serving.answers import Answers, Said, Usage
from calltune.serving.errors import Fault
from calltune.types import Json, ToolCall


@dataclass(slots=True)
class Head:
    """What all parts of a reply have in common."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def to_json(self, kind: str) -> dict[str, Json]:
        """With the kind of object that follows."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


async def whole(answers: Answers, head: Head, seconds: float) -> dict[str, Json]:
    """The reply, once all answers are there.

    Raises:
        Fault: one cannot be given, or not within so many seconds.
    """
    choices: dict[int, _Choice] = {}
    async for said in in_time(answers.events(), seconds):
        choices.setdefault(said.answer, _Choice()).take(said)
    return head.to_json("chat.completion") | {
        "choices": [choices[index].to_json(index) for index in sorted(choices)],
        "usage": usage_json(answers.usage),
    }


async def streamed(
    answers: Answers, head: Head, wants_usage: bool, seconds: float
) -> AsyncGenerator[bytes, None]:
    """The reply as server-sent events; a fault after the first one is the last of them.

    Raises:
        Fault: there is not even a first one, or not within so many seconds.
    """
    started: dict[int, _Stream] = {}
    try:
        async for said in in_time(answers.events(), seconds):
            if said.answer not in started:
                started[said.answer] = _Stream()
            for delta, reason in started[said.answer].deltas(said):
                yield _event(_chunk(head, said.answer, delta, reason, wants_usage))
        if wants_usage:
            chunk = head.to_json("chat.completion.chunk")
            yield _event(chunk | {"choices": [], "usage": usage_json(answers.usage)})
    except Fault as fault:
        if not started:
            raise
        yield _event(fault.body())
    yield b"data: [DONE]\n\n"


async def in_time(events: AsyncGenerator[Said, None], seconds: float) -> AsyncGenerator[Said, None]:
    """The events, as long as the last one comes within so many seconds.

    Raises:
        Fault: it does not.
    """
    end = time.monotonic() + seconds
    async with aclosing(events) as stream:
        while True:
            try:
                async with asyncio.timeout(max(0.0, end - time.monotonic())):
                    said = await anext(stream, None)
            except TimeoutError:
                text = f"There was no whole answer within {seconds:g} seconds"
                raise Fault(503, text, code="timeout") from None
            if said is None:
                return
            yield said


def usage_json(usage: Usage) -> dict[str, Json]:
    """Tokens read and written."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


@dataclass(slots=True)
class _Choice:
    words: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    reason: str = ""

    def take(self, said: Said) -> None:
        match said.event:
            case Words(text=text):
                self.words.append(text)
            case Called(call=call):
                self.calls.append(call)
            case Ended(reason=reason):
                self.reason = reason

    def to_json(self, index: int) -> dict[str, Json]:
        content = "".join(self.words)
        message: dict[str, Json] = {
            "role": "assistant",
            "content": content if content or not self.calls else None,
            "refusal": None,
        }
        if self.calls:
            message["tool_calls"] = [_call_json(call) for call in self.calls]
        return {"index": index, "message": message, "logprobs": None, "finish_reason": self.reason}


Delta = tuple[dict[str, Json], str | None]


@dataclass(slots=True)
class _Stream:
    """One answer's deltas: a call's name comes first, then its arguments."""

    n_calls: int = 0
    is_begun: bool = False

    def deltas(self, said: Said) -> list[Delta]:
        match said.event:
            case Words(text=text):
                return [*self._begin(""), ({"content": text}, None)]
            case Called(call=call):
                whole = _call_json(call)
                first = whole | {"function": {"name": call.name, "arguments": ""}}
                rest: dict[str, Json] = {"function": {"arguments": dumps(call.arguments)}}
                index, self.n_calls = self.n_calls, self.n_calls + 1
                return [
                    *self._begin(None),
                    *(({"tool_calls": [{"index": index} | part]}, None) for part in (first, rest)),
                ]
            case Ended(reason=reason):
                return [*self._begin(""), ({}, reason)]

    def _begin(self, content: str | None) -> list[Delta]:
        if self.is_begun:
            return []
        self.is_begun = True
        return [({"role": "assistant", "content": content}, None)]


def _call_json(call: ToolCall) -> dict[str, Json]:
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": call.name, "arguments": dumps(call.arguments)},
    }


def _chunk(
    head: Head, index: int, delta: dict[str, Json], reason: str | None, wants_usage: bool
) -> dict[str, Json]:
    choice: dict[str, Json] = {
        "index": index,
        "delta": delta,
        "logprobs": None,
        "finish_reason": reason,
    }
    chunk = head.to_json("chat.completion.chunk") | {"choices": [choice]}
    return chunk | {"usage": None} if wants_usage else chunk


def _event(data: Json) -> bytes:
    return f"data: {dumps(data)}\n\n".encode()

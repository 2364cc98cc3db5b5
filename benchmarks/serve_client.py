"""Clients of an OpenAI-compatible server: one request and its answer, or many clients at once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from serve_questions import Question, answer_text

CHAT = "/v1/chat/completions"
NO_ANSWER = 0
"""The status of a request whose connection failed or that took too long."""


@dataclass(slots=True)
class Reply:
    """The response to one request, and its timing."""

    status: int = NO_ANSWER
    seconds: float = 0.0
    first_s: float | None = None
    """Time to the first token of a streamed answer."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    """Each with name and arguments, the arguments as text."""
    content: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None
    error: Any = None
    """The error body, or why there was no response."""
    retry_after: str | None = None

    @property
    def text(self) -> str:
        """The answer in a form to compare."""
        return answer_text(self.calls, self.content)

    @property
    def tokens(self) -> int:
        """Tokens of the answer."""
        return int(self.usage.get("completion_tokens", 0))

    def add(self, message: dict[str, Any]) -> bool:
        """Add a message or a delta; whether it contained any of the answer."""
        self.content += message.get("content") or ""
        for position, piece in enumerate(message.get("tool_calls") or []):
            index = piece.get("index", position)
            while len(self.calls) <= index:
                self.calls.append({"name": "", "arguments": ""})
            function = piece.get("function") or {}
            self.calls[index]["name"] += function.get("name") or ""
            self.calls[index]["arguments"] += function.get("arguments") or ""
        return bool(message.get("content") or message.get("tool_calls"))


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and what a server answered."""

    question: Question
    reply: Reply
    started_s: float
    """On the clock of `time.perf_counter`."""


def open_client(url: str, timeout_s: float) -> httpx.AsyncClient:
    """A client with any number of connections, and without a proxy."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=timeout_s, limits=limits, trust_env=False)


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> Reply:
    """Send one request; if the connection fails, the reply has the status NO_ANSWER."""
    reply, started = Reply(), time.perf_counter()
    try:
        async with client.stream("POST", CHAT, json=body) as response:
            reply.retry_after = response.headers.get("retry-after")
            if body.get("stream") and response.status_code == 200:
                await _take_events(reply, response.aiter_lines(), started)
            else:
                _take_whole(reply, await response.aread(), response.status_code)
            reply.status = response.status_code
    except (httpx.HTTPError, ValueError) as failure:
        reply.error = f"{type(failure).__name__}: {failure}"
    reply.seconds = time.perf_counter() - started
    return reply


async def ask_all(
    client: httpx.AsyncClient,
    questions: Iterator[Question],
    body: Callable[[Question], dict[str, Any]],
    n_clients: int,
    *,
    deadline_s: float,
    max_wait_s: float = 0.0,
) -> list[Asked]:
    """Let `n_clients` clients send one question after the other until there are no more.

    After `deadline_s` no question is sent. A client that is told to retry later waits as long as
    it is told, but at most `max_wait_s`, and goes on with its next question.
    """
    asked: list[Asked] = []
    end = time.perf_counter() + deadline_s

    async def one_client() -> None:
        while time.perf_counter() < end and (question := next(questions, None)) is not None:
            started = time.perf_counter()
            reply = await ask(client, body(question))
            asked.append(Asked(question, reply, started))
            if reply.status in (429, 503) and max_wait_s:
                await asyncio.sleep(min(float(reply.retry_after or 1), max_wait_s))

    async with asyncio.TaskGroup() as group:
        for _ in range(n_clients):
            group.create_task(one_client())
    return asked


async def _take_events(reply: Reply, lines: AsyncIterator[str], started: float) -> None:
    """Server-sent events up to `[DONE]`.

    Raises:
        ValueError: an event says that the answer failed, or they end too early.
    """
    async for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        _take_event(reply, json.loads(data), started)
    raise ValueError("the stream ended without [DONE]")


def _take_event(reply: Reply, event: dict[str, Any], started: float) -> None:
    if "error" in event:
        raise ValueError(f"in the stream: {event['error']}")
    reply.usage = event.get("usage") or reply.usage
    for choice in event.get("choices") or []:
        if reply.add(choice.get("delta") or {}) and reply.first_s is None:
            reply.first_s = time.perf_counter() - started
        reply.finish_reason = choice.get("finish_reason") or reply.finish_reason


def _take_whole(reply: Reply, raw: bytes, status: int) -> None:
    if status != 200:
        reply.error = _json_or_text(raw)
        return
    answer = json.loads(raw)
    choice = answer["choices"][0]
    reply.usage, reply.finish_reason = answer.get("usage") or {}, choice["finish_reason"]
    reply.add(choice["message"])


def _json_or_text(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")

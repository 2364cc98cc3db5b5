"""The answers to one request: starts their generation and yields their events as they come.

Where an adapter decides that no call is needed, the text is generated from a second prompt.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from calltune.formats import Format
from calltune.formats.repeats import NewCalls, repeats_text
from calltune.generation.sequence import Sampling
from calltune.serving.answer_parser import (
    AnswerParser,
    CompletedCall,
    Event,
    Finished,
    TextDelta,
)
from calltune.serving.engine import ENGINE_FAILED, Engine, Generation, TokenChunk
from calltune.serving.errors import APIError
from calltune.serving.generation_input import GenerationInput
from calltune.serving.grammar_pool import GrammarPool
from calltune.serving.unenforced import OffSchema, check_answer, check_call, retry_sampling
from calltune.types import ToolCall

log = logging.getLogger("calltune.serving")


@dataclass(frozen=True, slots=True)
class AnswerEvent:
    """An event of one of the answers to a request."""

    index: int
    """Which answer, from 0."""
    event: Event


@dataclass(slots=True)
class TokenUsage:
    """Tokens read and generated for a request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Runtime(NamedTuple):
    """The parts of a server that generate and check answers."""

    tokenizer: Any
    prompt_format: Format
    engine: Engine
    grammar_pool: GrammarPool


@dataclass(slots=True)
class _Attempt:
    """One generation for an answer, and how far it is known to be right."""

    generation: Generation
    parser: AnswerParser
    tokens: list[int] = field(default_factory=list)
    n_right_tokens: int = 0
    """How many of the tokens have brought complete calls that satisfy their schemas."""
    n_right_calls: int = 0
    """Some of them may end beyond those tokens."""


class Answers:
    """The answers to one request."""

    def __init__(
        self,
        runtime: Runtime,
        first: GenerationInput,
        samplings: Sequence[Sampling | None],
        text_input: Callable[[], Awaitable[GenerationInput]] | None = None,
        new_calls: NewCalls | None = None,
        stop_strings: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """One answer for each of `samplings`; nothing is generated yet.

        Calls that are not new are dropped. If no call is left, the answer is generated as text from
        `text_input`; without that it is empty.
        """
        self.usage = TokenUsage(prompt_tokens=len(first.tokens))
        self.headers = dict(headers or {})
        """HTTP headers for the response: what a client should know of how it was answered."""
        self._runtime = runtime
        self._first = first
        self._samplings = samplings
        self._text_input = text_input
        self._new_calls = new_calls or NewCalls(drops_repeats=False)
        self._stop_strings = stop_strings

    async def events(self) -> AsyncGenerator[AnswerEvent, None]:
        """The events of all answers as they come; closing the generator cancels the rest.

        Raises:
            APIError: the server is at capacity, generation failed, or an answer does not satisfy
                its schema.
        """
        engine = self._runtime.engine
        engine.check_capacity(len(self._samplings))
        # No await between the check and these: other requests would run in between.
        prompts = [self._first.prompt(sampling) for sampling in self._samplings]
        generations = [engine.submit(prompt) for prompt in prompts]
        queue: asyncio.Queue[AnswerEvent | BaseException] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._forward(index, each, queue))
            for index, each in enumerate(generations)
        ]
        for task in tasks:
            task.add_done_callback(lambda done: _forward_error(done, queue))
        n_left = len(tasks)
        try:
            while n_left:
                item = await queue.get()
                if isinstance(item, BaseException):
                    raise item
                n_left -= isinstance(item.event, Finished)
                yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for each in generations:
                each.close()

    async def _forward(
        self,
        index: int,
        generation: Generation,
        queue: "asyncio.Queue[AnswerEvent | BaseException]",
    ) -> None:
        """Put the events of one answer into the queue."""
        async with aclosing(self._answer(index, generation)) as events:
            async for event in events:
                queue.put_nowait(AnswerEvent(index, event))

    async def _answer(self, index: int, generation: Generation) -> AsyncGenerator[Event, None]:
        """One answer: calls or text, or text of a second generation if no call is left."""
        n_yielded = 0
        new_calls = self._new_calls.restart()
        attempt = _Attempt(generation, self._parser(self._first))
        async for event in self._checked(attempt, self._first, index):
            if isinstance(event, CompletedCall) and not new_calls.is_new(event.call):
                log.info("%s", repeats_text(1))
                continue
            is_end = isinstance(event, Finished) and event.reason != "length"
            if (
                is_end
                and attempt.parser.wrote_calls
                and not n_yielded
                and self._text_input is not None
            ):
                break
            n_yielded += not is_end
            yield event
        else:
            return
        attempt.generation.close()
        second = await self._text_input()
        self.usage.prompt_tokens += len(second.tokens)
        prompt = second.prompt(self._samplings[index])
        attempt = _Attempt(self._runtime.engine.submit(prompt), self._parser(second))
        with closing(attempt.generation):
            async for event in self._checked(attempt, second, index):
                yield event

    def _parser(self, source: GenerationInput) -> AnswerParser:
        names = source.compiled.original_names

        def original_call(call: ToolCall) -> ToolCall:
            return ToolCall(names.get(call.name, call.name), call.arguments)

        return AnswerParser(
            self._runtime.tokenizer,
            self._runtime.prompt_format,
            source.can_call,
            self._stop_strings,
            original_call,
        )

    async def _checked(
        self, attempt: _Attempt, source: GenerationInput, index: int
    ) -> AsyncGenerator[Event, None]:
        """The events of an attempt, and where one is off its schema those of another."""
        try:
            async for event in self._parse(attempt, source):
                yield event
            return
        except OffSchema as fault:
            log.info("%s; it is generated once more", fault.note.message)
        attempt.generation.close()
        begun = attempt.tokens[: attempt.n_right_tokens]
        parser = self._parser(source)
        n_known = attempt.n_right_calls - sum(
            isinstance(event, CompletedCall) for event in parser.feed(begun)
        )
        prompt = source.prompt(retry_sampling(self._samplings[index]), begun)
        attempt.parser, n_calls = parser, attempt.n_right_calls
        with closing(self._runtime.engine.submit(prompt)) as generation:
            again = _Attempt(generation, parser)
            try:
                async for event in self._parse(again, source):
                    if isinstance(event, CompletedCall) and again.n_right_calls <= n_known:
                        continue
                    n_calls += isinstance(event, CompletedCall)
                    yield event
            except OffSchema as fault:
                for event in fault.events(has_calls=n_calls > 0):
                    yield event

    async def _parse(
        self, attempt: _Attempt, source: GenerationInput
    ) -> AsyncGenerator[Event, None]:
        """The events of one generation, each checked before it is yielded.

        Raises:
            OffSchema: a call or the answer breaks what the grammar leaves out.
        """
        pool, parser = self._runtime.grammar_pool, attempt.parser
        text, is_held_back = "", source.schema is not None and source.unenforced_keywords()
        async for chunk in attempt.generation:
            self.usage.completion_tokens += len(chunk.tokens)
            attempt.tokens += chunk.tokens
            n_calls = attempt.n_right_calls
            for event in _events(parser, chunk):
                if isinstance(event, CompletedCall):
                    await check_call(event.call, source, pool)
                    attempt.n_right_calls += 1
                elif isinstance(event, TextDelta) and is_held_back:
                    text += event.text
                    continue
                elif isinstance(event, Finished) and text:
                    if event.reason == "stop":
                        await check_answer(text, source, pool)
                    yield TextDelta(text)
                yield event
            if attempt.n_right_calls > n_calls:
                attempt.n_right_tokens = len(attempt.tokens)
            if parser.was_stopped:
                return


def _forward_error(
    task: "asyncio.Task[None]", queue: "asyncio.Queue[AnswerEvent | BaseException]"
) -> None:
    """Put the error that ended a task into the queue, if one did."""
    if not task.cancelled() and (error := task.exception()) is not None:
        queue.put_nowait(error)


def _events(parser: AnswerParser, chunk: TokenChunk) -> Sequence[Event]:
    if chunk.problem is not None:
        status = 500 if chunk.problem == ENGINE_FAILED else 422
        raise APIError(status, f"The answer was broken off: {chunk.problem[:200]}")
    events = list(parser.feed(chunk.tokens))
    if chunk.finish_reason is not None or parser.was_stopped:
        events += parser.finish(chunk.finish_reason == "stop")
    return events

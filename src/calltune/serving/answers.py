"""The answers to one request: starts their generation and yields their events as they come.

Where an adapter decides that no call is needed, the text is generated from a second prompt.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any, NamedTuple

from calltune.formats import Format
from calltune.formats.grammar import THE_ANSWER
from calltune.formats.repeats import NewCalls, repeats_text
from calltune.generation.constraints import GrammarConstraint
from calltune.generation.sequence import Prompt, Sampling
from calltune.serving.answer_parser import (
    AnswerParser,
    CompletedCall,
    Event,
    Finished,
    TextDelta,
)
from calltune.serving.engine import ENGINE_FAILED, Engine, Generation, TokenChunk
from calltune.serving.errors import APIError
from calltune.serving.grammar_jobs import CompileResult
from calltune.serving.grammar_pool import GrammarPool
from calltune.types import Json, ToolCall

log = logging.getLogger("calltune.serving")


class GenerationInput(NamedTuple):
    """A tokenized prompt, and what the answers to it must keep to."""

    tokens: list[int]
    compiled: CompileResult
    matcher: Any
    """The llguidance matcher that each answer's constraint is a copy of; None for free text."""
    schema: Json
    """The JSON Schema of the whole answer; None if it is calls or text."""
    adapter: int
    """0 is the base model."""
    max_tokens: int

    def prompt(self, sampling: Sampling | None) -> Prompt:
        """A new prompt for the engine, for one answer."""
        constraint = None if self.matcher is None else GrammarConstraint(self.matcher.deep_copy())
        prompt_id = secrets.token_hex(12)
        return Prompt(prompt_id, self.tokens, constraint, sampling, self.max_tokens, self.adapter)

    @property
    def can_call(self) -> bool:
        """Whether the answer may be calls."""
        return bool(self.compiled.tools)

    def unenforced_keywords(self, tool: str = THE_ANSWER) -> list[str]:
        """The parts of a tool's schema, or of the answer's own, that the grammar leaves out."""
        notes = self.compiled.grammar.notes if self.compiled.grammar else ()
        return [note for note in notes if note.startswith(f"{tool}: ")]


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
        parser = self._parser(self._first)
        async for event in self._parse(generation, parser, self._first):
            if isinstance(event, CompletedCall) and not new_calls.is_new(event.call):
                log.info("%s", repeats_text(1))
                continue
            is_end = isinstance(event, Finished) and event.reason != "length"
            if is_end and parser.wrote_calls and not n_yielded and self._text_input is not None:
                break
            n_yielded += not is_end
            yield event
        else:
            return
        generation.close()
        second = await self._text_input()
        self.usage.prompt_tokens += len(second.tokens)
        prompt = second.prompt(self._samplings[index])
        with closing(self._runtime.engine.submit(prompt)) as text:
            async for event in self._parse(text, self._parser(second), second):
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

    async def _parse(
        self, generation: Generation, parser: AnswerParser, source: GenerationInput
    ) -> AsyncGenerator[Event, None]:
        """The events of one generation, each checked before it is yielded."""
        text = ""
        async for chunk in generation:
            self.usage.completion_tokens += len(chunk.tokens)
            for event in _events(parser, chunk):
                if isinstance(event, CompletedCall):
                    await self._check_call(event.call, source)
                elif isinstance(event, TextDelta):
                    text += event.text
                elif event == Finished("stop"):
                    await self._check_answer(text, source)
                yield event
            if parser.was_stopped:
                return

    async def _check_call(self, call: ToolCall, source: GenerationInput) -> None:
        """Validate a call's arguments if the grammar does not enforce their whole schema."""
        names = source.compiled.original_names
        for tool in source.compiled.tools:
            is_called = names.get(tool.name, tool.name) == call.name
            if is_called and source.unenforced_keywords(tool.name):
                text = f"The model's arguments of {call.name} do not satisfy its schema"
                await self._validate(call.arguments, tool.parameters, text, "tools")

    async def _check_answer(self, text: str, source: GenerationInput) -> None:
        """Validate a JSON answer if the grammar does not enforce its whole schema."""
        if source.schema is not None and source.unenforced_keywords():
            try:
                value = json.loads(text)
            except ValueError:
                value = None
            problem = "The model's answer does not satisfy the schema"
            await self._validate(value, source.schema, problem, "response_format")

    async def _validate(self, value: Json, schema: Json, problem: str, param: str) -> None:
        if not await self._runtime.grammar_pool.validate(value, schema):
            text = f"{problem}; try again, or simplify the schema"
            raise APIError(422, text, param, "answer_off_schema")


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

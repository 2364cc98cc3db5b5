"""The answers to one request as they come: calls, words, and how each one ended.

What a model is asked: a prompt, and what its answer keeps to.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any, NamedTuple

from calltune.formats import Format
from calltune.formats.grammar import THE_ANSWER
from calltune.formats.parser import call_key
from calltune.generation.constraints import GrammarConstraint
from calltune.generation.sequence import Prompt, Sampling
from calltune.serving.answer_parser import Called, Ended, Event, Turn, Words
from calltune.serving.engine import ENGINE_FAILED, Engine, Open, Piece
from calltune.serving.errors import Fault
from calltune.serving.grammar_jobs import Prepared
from calltune.serving.grammar_pool import Workshop
from calltune.types import Json, ToolCall


class Question(NamedTuple):
    """Asked once for each answer that is wanted."""

    tokens: list[int]
    prepared: Prepared
    matcher: Any
    """What the answers' constraints are copies of; None where nothing holds them."""
    schema: Json
    """Of answers in JSON; None where they are calls or words."""
    adapter: int
    """0 is the base model."""
    max_tokens: int

    def prompt(self, sampling: Sampling | None) -> Prompt:
        """For one answer."""
        constraint = None if self.matcher is None else GrammarConstraint(self.matcher.deep_copy())
        name = secrets.token_hex(12)
        return Prompt(name, self.tokens, constraint, sampling, self.max_tokens, self.adapter)

    @property
    def can_call(self) -> bool:
        """Whether the answer may be calls."""
        return bool(self.prepared.tools)

    def not_held(self, tool: str | None = None) -> list[str]:
        """What of a tool's schema, or of that of the whole answer, the grammar does not hold."""
        notes = self.prepared.grammar.notes if self.prepared.grammar else ()
        return [note for note in notes if note.startswith(f"{tool or THE_ANSWER}: ")]


class Said(NamedTuple):
    """An event of one of the answers to a request."""

    answer: int
    event: Event


@dataclass(slots=True)
class Usage:
    """Tokens read and written for a request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Means(NamedTuple):
    """What answers are made with."""

    tokenizer: Any
    prompt_format: Format
    engine: Engine
    workshop: Workshop


class Answers:
    """The answers to one request: events as they come, from all of them."""

    def __init__(
        self,
        means: Means,
        question: Question,
        samplings: Sequence[Sampling | None],
        in_words: Callable[[], Awaitable[Question]] | None = None,
        made: Collection[str] = (),
        stops: Sequence[str] = (),
    ) -> None:
        """One answer to a question for each of `samplings`.

        A call in `made` (see `call_key`) is not made again. Where no call is left, `in_words` is
        asked; without it the answer has nothing in it.
        """
        self.usage = Usage(prompt_tokens=len(question.tokens))
        self._means = means
        self._question = question
        self._samplings = samplings
        self._in_words = in_words
        self._made = made
        self._stops = stops

    async def events(self) -> AsyncGenerator[Said, None]:
        """What the answers say, each in its order; leaving off frees their rows.

        Raises:
            Fault: an answer cannot be given.
        """
        self._means.engine.check_room(len(self._samplings))
        # Taken together with the look at what room there is: others look in between.
        prompts = [self._question.prompt(sampling) for sampling in self._samplings]
        opened = [self._means.engine.open(prompt) for prompt in prompts]
        queue: asyncio.Queue[Said | BaseException] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._follow(index, each, queue))
            for index, each in enumerate(opened)
        ]
        n_left = len(tasks)
        try:
            while n_left:
                said = await queue.get()
                if isinstance(said, BaseException):
                    raise said
                n_left -= isinstance(said.event, Ended)
                yield said
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for each in opened:
                each.close()

    async def _follow(
        self, index: int, opened: Open, queue: "asyncio.Queue[Said | BaseException]"
    ) -> None:
        try:
            async with aclosing(self._one(index, opened)) as events:
                async for event in events:
                    queue.put_nowait(Said(index, event))
        except Exception as error:
            queue.put_nowait(error)

    async def _one(self, index: int, opened: Open) -> AsyncGenerator[Event, None]:
        """One answer: calls or words; words as well where no call is left to be made."""
        n_given = 0
        turn = self._turn(self._question)
        async for event in self._read(opened, turn, self._question):
            if isinstance(event, Called) and call_key(event.call) in self._made:
                continue
            is_end = isinstance(event, Ended) and event.reason != "length"
            if is_end and turn.wrote_calls and not n_given and self._in_words is not None:
                break
            n_given += not is_end
            yield event
        else:
            return
        opened.close()
        question = await self._in_words()
        self.usage.prompt_tokens += len(question.tokens)
        with closing(self._means.engine.open(question.prompt(self._samplings[index]))) as asked:
            async for event in self._read(asked, self._turn(question), question):
                yield event

    def _turn(self, question: Question) -> Turn:
        means, names = self._means, question.prepared.original_names

        def original(call: ToolCall) -> ToolCall:
            return ToolCall(names.get(call.name, call.name), call.arguments)

        return Turn(means.tokenizer, means.prompt_format, question.can_call, self._stops, original)

    async def _read(
        self, opened: Open, turn: Turn, question: Question
    ) -> AsyncGenerator[Event, None]:
        """The events of one answer, each call looked at before it is given."""
        said = ""
        async for piece in opened:
            self.usage.completion_tokens += len(piece.tokens)
            for event in _events(turn, piece):
                if isinstance(event, Called):
                    await self._check_call(event.call, question)
                elif isinstance(event, Words):
                    said += event.text
                elif event == Ended("stop"):
                    await self._check_answer(said, question)
                yield event
            if turn.is_cut:
                return

    async def _check_call(self, call: ToolCall, question: Question) -> None:
        """See that a call keeps to the part of its schema that it was not held to."""
        names = question.prepared.original_names
        for tool in question.prepared.tools:
            is_it = names.get(tool.name, tool.name) == call.name
            if is_it and question.not_held(tool.name):
                text = f"The model's arguments of {call.name} do not satisfy its schema"
                await self._check(call.arguments, tool.parameters, text, "tools")

    async def _check_answer(self, text: str, question: Question) -> None:
        """The same of an answer in JSON."""
        if question.schema is not None and question.not_held():
            try:
                value = json.loads(text)
            except ValueError:
                value = None
            problem = "The model's answer does not satisfy the schema"
            await self._check(value, question.schema, problem, "response_format")

    async def _check(self, value: Json, schema: Json, problem: str, param: str) -> None:
        if not await self._means.workshop.check(value, schema):
            text = f"{problem}; ask again, or make it simpler"
            raise Fault(422, text, param, "answer_off_schema")


def _events(turn: Turn, piece: Piece) -> Sequence[Event]:
    if piece.problem is not None:
        status = 500 if piece.problem == ENGINE_FAILED else 422
        raise Fault(status, f"The answer was broken off: {piece.problem[:200]}")
    events = list(turn.feed(piece.tokens))
    if piece.finish is not None or turn.is_cut:
        events += turn.finish(piece.finish == "stop")
    return events

"""The answers to one request as they come: calls, words, and how each one ended."""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any, NamedTuple

from calltune.calls import Json, Tool, ToolCall
from calltune.decode.row import Prompt
from calltune.formats import Format
from calltune.formats.grammar import THE_ANSWER
from calltune.serve.engine import ENGINE_FAILED, Engine, Open, Piece
from calltune.serve.faults import Fault
from calltune.serve.preparing import Prepared
from calltune.serve.turn import Called, Ended, Event, Turn, Words
from calltune.serve.workshop import Workshop


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
    family: Format
    engine: Engine
    workshop: Workshop


class Answers:
    """The answers to one request: events as they come, from all of them."""

    def __init__(
        self,
        means: Means,
        prompts: Sequence[Prompt],
        prepared: Prepared,
        plain: Callable[[], Awaitable[list[int]]],
        stops: Sequence[str],
        schema: Json = None,
    ) -> None:
        """`plain` gives the tokens of the same conversation without tools.

        `schema` is that of answers in JSON, if they are to have one.
        """
        self.usage = Usage(prompt_tokens=len(prompts[0].tokens))
        self._means = means
        self._plain = plain
        self._prompts = prompts
        self._prepared = prepared
        self._stops = stops
        self._schema = schema
        self._schema_notes = self._notes(THE_ANSWER)

    async def events(self) -> AsyncGenerator[Said, None]:
        """What the answers say, each in its order; leaving off frees their rows.

        Raises:
            Fault: an answer cannot be given.
        """
        self._means.engine.check_room(len(self._prompts))
        # Taken together with the look at what room there is: others look in between.
        opened = [self._means.engine.open(prompt) for prompt in self._prompts]
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
        """One answer: calls or words; words as well where it says that no call is due."""
        turn = self._turn(can_call=bool(self._prepared.tools))
        async for event in self._read(opened, turn):
            if event != Ended("stop") or not turn.calls_nothing:
                yield event
        if turn.calls_nothing:
            prompt = await self._in_words(self._prompts[index])
            with closing(self._means.engine.open(prompt)) as asked:
                async for event in self._read(asked, self._turn(can_call=False)):
                    yield event

    async def _in_words(self, prompt: Prompt) -> Prompt:
        """The same question without tools, for a model that has said that no call is due."""
        tokens = await self._plain()
        return prompt._replace(id=secrets.token_hex(12), tokens=tokens, constraint=None)

    def _turn(self, can_call: bool) -> Turn:
        means, names = self._means, self._prepared.original_names

        def original(call: ToolCall) -> ToolCall:
            return ToolCall(names.get(call.name, call.name), call.arguments)

        return Turn(means.tokenizer, means.family, can_call, self._stops, original)

    async def _read(self, opened: Open, turn: Turn) -> AsyncGenerator[Event, None]:
        """The events of one answer, each call looked at before it is given."""
        said = ""
        async for piece in opened:
            self.usage.completion_tokens += len(piece.tokens)
            for event in _events(turn, piece):
                if isinstance(event, Called):
                    await self._check_call(event.call)
                elif isinstance(event, Words) and self._schema_notes:
                    said += event.text
                elif event == Ended("stop") and said:
                    await self._check_answer(said)
                yield event
            if turn.is_cut:
                return

    async def _check_answer(self, text: str) -> None:
        """See that JSON keeps to the part of its schema that it was not held to."""
        try:
            is_right = await self._means.workshop.check(json.loads(text), self._schema)
        except ValueError:
            is_right = False
        if not is_right:
            raise _off_schema("The model's answer does not satisfy the schema", "response_format")

    async def _check_call(self, call: ToolCall) -> None:
        """See that a call keeps to the part of its schema that it was not held to."""
        tool = next(tool for tool in self._prepared.tools if self._original(tool) == call.name)
        if not self._notes(tool.name):
            return
        if not await self._means.workshop.check(call.arguments, tool.parameters):
            text = f"The model's arguments of {call.name} do not satisfy its schema"
            raise _off_schema(text, "tools")

    def _notes(self, of: str) -> list[str]:
        """What answers are not held to, of a tool's schema or that of the answer."""
        notes = self._prepared.grammar.notes if self._prepared.grammar else ()
        return [note for note in notes if note.startswith(f"{of}: ")]

    def _original(self, tool: Tool) -> str:
        return self._prepared.original_names.get(tool.name, tool.name)


def _off_schema(text: str, param: str) -> Fault:
    return Fault(422, f"{text}; ask again, or make it simpler", param, "answer_off_schema")


def _events(turn: Turn, piece: Piece) -> Sequence[Event]:
    if piece.problem is not None:
        status = 500 if piece.problem == ENGINE_FAILED else 422
        raise Fault(status, f"The answer was broken off: {piece.problem[:200]}")
    events = list(turn.feed(piece.tokens))
    if piece.finish is not None or turn.is_cut:
        events += turn.finish(piece.finish == "stop")
    return events

"""The answers to one request as they come: calls, words, and how each one ended."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple

from calltune.calls import Tool, ToolCall
from calltune.decode.row import Prompt
from calltune.formats import Format
from calltune.serve.engine import ENGINE_FAILED, Engine, Piece
from calltune.serve.faults import Fault
from calltune.serve.preparing import Prepared
from calltune.serve.turn import Called, Ended, Event, Turn
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
    ) -> None:
        """`plain` gives the tokens of the same conversation without tools."""
        self.usage = Usage(prompt_tokens=len(prompts[0].tokens))
        self._means = means
        self._plain = plain
        self._prompts = prompts
        self._prepared = prepared
        self._stops = stops
        self._tools = {tool.name: tool for tool in prepared.tools}

    async def events(self) -> AsyncGenerator[Said, None]:
        """What the answers say, each in its order; leaving off frees their rows.

        Raises:
            Fault: an answer cannot be given.
        """
        queue: asyncio.Queue[Said | BaseException] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._follow(index, prompt, queue))
            for index, prompt in enumerate(self._prompts)
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

    async def _follow(
        self, index: int, prompt: Prompt, queue: "asyncio.Queue[Said | BaseException]"
    ) -> None:
        try:
            async with aclosing(self._one(prompt)) as events:
                async for event in events:
                    queue.put_nowait(Said(index, event))
        except Exception as error:
            queue.put_nowait(error)

    async def _one(self, prompt: Prompt) -> AsyncGenerator[Event, None]:
        """One answer: calls or words; words as well where it says that no call is due."""
        turn = self._turn(can_call=bool(self._tools))
        end: Event | None = None
        async with aclosing(self._read(prompt, turn)) as events:
            async for event in events:
                if isinstance(event, Ended):
                    end = event
                else:
                    yield event
        if turn.calls_nothing and end == Ended("stop"):
            words = self._turn(can_call=False)
            tokens = await self._plain()
            asked = prompt._replace(id=secrets.token_hex(12), tokens=tokens, constraint=None)
            async with aclosing(self._read(asked, words)) as events:
                async for event in events:
                    yield event
        elif end is not None:
            yield end

    def _turn(self, can_call: bool) -> Turn:
        means, names = self._means, self._prepared.original_names

        def original(call: ToolCall) -> ToolCall:
            return ToolCall(names.get(call.name, call.name), call.arguments)

        return Turn(means.tokenizer, means.family, can_call, self._stops, original)

    async def _read(self, prompt: Prompt, turn: Turn) -> AsyncGenerator[Event, None]:
        async with aclosing(self._means.engine.answer(prompt)) as pieces:
            async for piece in pieces:
                self.usage.completion_tokens += len(piece.tokens)
                for event in _events(turn, piece):
                    if isinstance(event, Called):
                        await self._check(event.call)
                    yield event
                if turn.is_cut:
                    return

    async def _check(self, call: ToolCall) -> None:
        """See that a call keeps to the part of its schema that it was not held to."""
        tool = next(tool for tool in self._prepared.tools if self._original(tool) == call.name)
        notes = self._prepared.grammar.notes if self._prepared.grammar else ()
        if not any(note.startswith(f"{tool.name}: ") for note in notes):
            return
        if not await self._means.workshop.check(call.arguments, tool.parameters):
            raise Fault(
                422,
                f"The model's arguments of {call.name} do not satisfy its schema; ask again, or "
                "make the schema simpler",
                "tools",
                "arguments_off_schema",
            )

    def _original(self, tool: Tool) -> str:
        return self._prepared.original_names.get(tool.name, tool.name)


def _events(turn: Turn, piece: Piece) -> Sequence[Event]:
    if piece.problem is not None:
        status = 500 if piece.problem == ENGINE_FAILED else 422
        raise Fault(status, f"The answer was broken off: {piece.problem[:200]}")
    events = list(turn.feed(piece.tokens))
    if piece.finish is not None or turn.is_cut:
        events += turn.finish(piece.finish == "stop")
    return events

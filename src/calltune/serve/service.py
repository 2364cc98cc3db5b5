"""A request answered: what is offered, the prompt, the rows that answer it, and what they say."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from calltune.batches import prompt_tokens
from calltune.calls import Json, Message
from calltune.decode.constrain import Constrainer
from calltune.formats import Format
from calltune.formats.grammar import Wanted
from calltune.serve import asking
from calltune.serve.answers import Answers, Means
from calltune.serve.conversation import read_messages
from calltune.serve.engine import Engine
from calltune.serve.faults import Fault
from calltune.serve.limits import LETTERS_A_TOKEN, Limits, check_sizes
from calltune.serve.preparing import Order, Prepared
from calltune.serve.question import Question
from calltune.serve.wire import ChatRequest
from calltune.serve.workshop import MOST_KEPT, Workshop

NOTHING_HELD = Prepared((), {}, None)
"""Of answers in words."""


@dataclass(slots=True)
class Service:
    """A model with its adapters, ready for requests."""

    tokenizer: Any
    family: Format
    models: dict[str, int]
    """The names that requests may give, and the adapter that each one means."""
    engine: Engine
    constrainer: Constrainer
    limits: Limits
    words: Literal["base", "tuned"] = "base"
    """Who writes words. An adapter was trained to decide on calls, and speaks badly."""
    repeats_calls: bool = False
    """Whether a call may be made again that was made since the user spoke."""
    workshop: Workshop = field(default_factory=Workshop)
    _compiled: OrderedDict[str, Any] = field(default_factory=OrderedDict)

    async def start(self) -> None:
        """Begin to work, in the event loop that runs now."""
        self.engine.start()
        await self.workshop.start()

    async def stop(self) -> None:
        """End what was started."""
        await self.workshop.close()
        await asyncio.to_thread(self.engine.stop)

    async def ask(self, request: ChatRequest) -> Answers:
        """What will answer a request, once all that can be wrong with it has been looked at.

        Raises:
            Fault: something is.
        """
        adapter = self._adapter(request.model)
        check_sizes(request, self.limits)
        samplings = asking.samplings(request, request.n or 1)
        self.engine.check_room(len(samplings))
        messages = [self.family.tamed(each) for each in read_messages(request.messages)]
        splits = self.words == "base" and adapter != 0
        wanted = asking.wanted(request, splits)
        wanted_after = asking.wanted_after(request)
        # Looked at now: later there may be no status left to say that it cannot be used.
        after = await self._prepare([], wanted_after, request)

        async def in_words() -> Question:
            speaker = 0 if splits else adapter
            return await self._question(request, messages, wanted_after, after, speaker)

        if not (offered := asking.offered(request)):
            question, later = await in_words(), None
        else:
            prepared = await self._prepare(offered, wanted, request)
            question = await self._question(request, messages, wanted, prepared, adapter)
            later = None if wanted.least_calls else in_words
        made = asking.made_calls(messages) if later and not self.repeats_calls else ()
        stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
        means = Means(self.tokenizer, self.family, self.engine, self.workshop)
        return Answers(means, question, samplings, later, made, stops)

    def _adapter(self, name: str) -> int:
        if name not in self.models:
            known = ", ".join(self.models)
            text = f"There is no model {name!r:.100}; there are: {known}"
            raise Fault(404, text, "model", "model_not_found")
        return self.models[name]

    async def _question(
        self,
        request: ChatRequest,
        messages: Sequence[Message],
        wanted: Wanted,
        prepared: Prepared,
        adapter: int,
    ) -> Question:
        tools = [self.family.tamed_tool(tool) for tool in prepared.tools]
        prompt = self.family.render(messages, tools)
        most = self.limits.context_tokens
        if len(prompt) > LETTERS_A_TOKEN * most:
            raise _too_long(f"The prompt has {len(prompt)} letters", most)
        tokens = await asyncio.to_thread(prompt_tokens, self.tokenizer, prompt, self.family)
        room = most - len(tokens)
        if room < 1:
            raise _too_long(f"The prompt has {len(tokens)} tokens", most)
        limit = request.max_completion_tokens or request.max_tokens or self.limits.answer_tokens
        limit = min(limit, self.limits.answer_tokens, room)
        matcher = await self._matcher(prepared)
        return Question(tokens, prepared, matcher, wanted.schema, adapter, limit)

    async def _prepare(
        self, offered: Sequence[dict[str, Json]], wanted: Wanted, request: ChatRequest
    ) -> Prepared:
        if not offered and wanted.schema is None:
            return NOTHING_HELD
        special = tuple(sorted(self.constrainer.special))
        order = Order(self.family.name, special, tuple(offered), wanted, asking.is_strict(request))
        return await self.workshop.prepare(order)

    async def _matcher(self, prepared: Prepared) -> Any:
        """What the answers' constraints are copies of; None where nothing holds them.

        Raises:
            Fault: the grammar is too much for this model's tokens.
        """
        if prepared.grammar is None:
            return None
        text = prepared.grammar.text
        if text not in self._compiled:
            matcher = await asyncio.to_thread(self.constrainer.compiled, text)
            if matcher.is_error():
                raise Fault(
                    422, "The schemas of this request cannot be compiled", code="bad_schema"
                )
            self._compiled[text] = matcher
            if len(self._compiled) > MOST_KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(text)
        return self._compiled[text]


def _too_long(text: str, most: int) -> Fault:
    text = f"{text}; with its answer there is room for {most} tokens"
    return Fault(400, text, "messages", "context_length_exceeded")

"""A request answered: what is offered, the prompt, the rows that answer it, and what they say."""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from calltune.batches import prompt_tokens
from calltune.calls import Json, Message, Tool
from calltune.decode.constrain import Constrainer, Constraint
from calltune.decode.row import Prompt
from calltune.formats import Format
from calltune.formats.grammar import Wanted
from calltune.serve import asking
from calltune.serve.answers import Answers, Means
from calltune.serve.conversation import defused, defused_tool, read_messages
from calltune.serve.engine import Engine
from calltune.serve.faults import Fault
from calltune.serve.limits import Limits, check_sizes
from calltune.serve.preparing import Order, Prepared
from calltune.serve.wire import ChatRequest
from calltune.serve.workshop import MOST_KEPT, Workshop

NO_TOOLS = Prepared((), {}, None)


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
        if request.model not in self.models:
            known = ", ".join(self.models)
            raise Fault(
                404,
                f"There is no model {request.model!r:.100}; there are: {known}",
                "model",
                "model_not_found",
            )
        check_sizes(request, self.limits)
        n_answers = request.n or 1
        self.engine.check_room(n_answers)
        messages = defused(read_messages(request.messages), self.family.markers)
        wanted = asking.wanted(request)
        offered = asking.offered(request)
        is_held = bool(offered) or wanted.schema is not None
        prepared = await self._prepare(offered, wanted, request) if is_held else NO_TOOLS
        tools = [defused_tool(tool, self.family.markers) for tool in prepared.tools]
        tokens = await self._tokens(messages, tools)
        matcher = await self._matcher(prepared)
        limit = request.max_completion_tokens or request.max_tokens or self.limits.answer_tokens
        room = self.limits.context_tokens - len(tokens)
        if room < 1:
            raise Fault(
                400,
                f"The prompt has {len(tokens)} tokens; there is room for "
                f"{self.limits.context_tokens}, with the answer",
                "messages",
                "context_length_exceeded",
            )
        prompts = [
            Prompt(
                secrets.token_hex(12),
                tokens,
                None if matcher is None else Constraint(matcher.deep_copy()),
                sampling,
                min(limit, self.limits.answer_tokens, room),
                self.models[request.model],
            )
            for sampling in asking.samplings(request, n_answers)
        ]
        stops = [request.stop] if isinstance(request.stop, str) else request.stop or []

        async def plain() -> list[int]:
            return await self._tokens(messages, ())

        means = Means(self.tokenizer, self.family, self.engine, self.workshop)
        return Answers(means, prompts, prepared, plain, stops, wanted.schema)

    async def _prepare(
        self, offered: Sequence[dict[str, Json]], wanted: Wanted, request: ChatRequest
    ) -> Prepared:
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

    async def _tokens(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        prompt = self.family.render(messages, tools)
        return await asyncio.to_thread(prompt_tokens, self.tokenizer, prompt, self.family)

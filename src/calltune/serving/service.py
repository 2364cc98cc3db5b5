"""A request answered: what is offered, the prompt, the rows that answer it, and what they say.

What a request wants: the functions on offer, what an answer may be, how it is drawn.

The messages of a request as calltune's.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from calltune.data.batching import prompt_tokens
from calltune.formats import Format
from calltune.formats.grammar import MAX_CALLS, OutputSpec
from calltune.formats.parser import ParseError, call_key, decode
from calltune.generation.constraints import Constrainer
from calltune.generation.sequence import Sampling
from calltune.serving.answers import Answers, Means, Question
from calltune.serving.engine import Engine
from calltune.serving.errors import Fault
from calltune.serving.grammar_jobs import Order, Prepared
from calltune.serving.grammar_pool import MAX_KEPT, Workshop
from calltune.serving.limits import CHARACTERS_PER_TOKEN, Limits, check_sizes
from calltune.serving.request_schema import (
    AnyMessage,
    AssistantMessage,
    CallMade,
    ChatRequest,
    Content,
    NamedChoice,
    ObjectFormat,
    SchemaFormat,
    ToolMessage,
)
from calltune.types import Json, Message, ToolCall


def offered_tools(request: ChatRequest) -> list[dict[str, Json]]:
    """The functions that may be called."""
    if request.tool_choice == "none":
        return []
    functions = [tool.function for tool in request.tools or ()]
    if isinstance(request.tool_choice, NamedChoice):
        name = request.tool_choice.function.name
        functions = [function for function in functions if function.name == name]
    return [
        {
            "name": function.name,
            "description": function.description or "",
            "parameters": function.parameters or {"type": "object", "properties": {}},
        }
        for function in functions
    ]


def wanted_with_tools(request: ChatRequest, splits: bool) -> OutputSpec:
    """What an answer may be where there are tools.

    With `splits` it is calls, or that none is due; what stands in their place is asked for apart.
    """
    is_named = isinstance(request.tool_choice, NamedChoice)
    most = 1 if is_named or request.parallel_tool_calls is False else MAX_CALLS
    if is_named or request.tool_choice == "required":
        return OutputSpec(min_calls=1, max_calls=most)
    schema = _answer_schema(request)
    if splits:
        return OutputSpec(max_calls=most)
    return OutputSpec(max_calls=most, allows_text=schema is None, schema=schema)


def wanted_without_tools(request: ChatRequest) -> OutputSpec:
    """What it may be without tools: words, or JSON of a schema."""
    schema = _answer_schema(request)
    return OutputSpec(max_calls=0, allows_text=schema is None, schema=schema)


def made_calls(messages: Sequence[Message]) -> set[str]:
    """The calls that were made since a user spoke last."""
    spoken = max((i for i, each in enumerate(messages) if each.role == "user"), default=-1)
    return {call_key(call) for message in messages[spoken + 1 :] for call in message.calls}


def _answer_schema(request: ChatRequest) -> Json:
    match request.response_format:
        case SchemaFormat(json_schema=named):
            return named.schema_
        case ObjectFormat():
            return {"type": "object"}
    return None


def is_strict(request: ChatRequest) -> bool:
    """Whether a schema is refused that answers cannot be held to in all it says."""
    functions = [tool.function for tool in request.tools or ()]
    named = request.response_format
    if isinstance(named, SchemaFormat) and named.json_schema.strict:
        return True
    return any(function.strict for function in functions)


def requested_samplings(request: ChatRequest, count: int) -> list[Sampling | None]:
    """How each answer is drawn: the first as the seed says, the others beside it."""
    if not request.temperature:
        return [None] * count
    seed = secrets.randbits(62) if request.seed is None else request.seed & (2**62 - 1)
    top_p = 1.0 if request.top_p is None else request.top_p
    return [Sampling(request.temperature, top_p, seed + index) for index in range(count)]


def read_messages(written: Sequence[AnyMessage]) -> tuple[Message, ...]:
    """The messages; a result has the name of the tool that it comes from.

    Raises:
        Fault: a result of no call, or arguments that are no JSON object.
    """
    names: dict[str, str] = {}
    return tuple(_message(item, f"messages[{i}]", names) for i, item in enumerate(written))


def _message(written: AnyMessage, place: str, names: dict[str, str]) -> Message:
    match written:
        case AssistantMessage():
            calls = written.tool_calls or ()
            made = tuple(_call(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(calls))
            names.update({call.id: call.function.name for call in calls})
            return Message("assistant", _text(written.content), made)
        case ToolMessage():
            if written.tool_call_id not in names:
                raise Fault(
                    400,
                    f"{place} is the result of {written.tool_call_id!r:.80}, and no message before "
                    "it has a call with this id",
                    f"{place}.tool_call_id",
                )
            text = _text(written.content)
            return Message("tool", text, tool_name=names[written.tool_call_id])
        case _:
            role = "user" if written.role == "user" else "system"
            return Message(role, _text(written.content))


def _call(written: CallMade, place: str) -> ToolCall:
    try:
        arguments = decode(written.function.arguments.strip() or "{}")
    except ParseError as problem:
        raise Fault(400, f"{place} has arguments that are {problem}", place) from None
    if not isinstance(arguments, dict):
        raise Fault(400, f"{place} has arguments that are no JSON object", place)
    return ToolCall(written.function.name, arguments)


def _text(content: Content | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text for part in content)


NOTHING_HELD = Prepared((), {}, None)
"""Of answers in words."""


@dataclass(slots=True)
class Service:
    """A model with its adapters, ready for requests."""

    tokenizer: Any
    prompt_format: Format
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
        samplings = requested_samplings(request, request.n or 1)
        self.engine.check_room(len(samplings))
        messages = [
            self.prompt_format.escape_control_tokens(each)
            for each in read_messages(request.messages)
        ]
        splits = self.words == "base" and adapter != 0
        wanted = wanted_with_tools(request, splits)
        wanted_after = wanted_without_tools(request)
        # Looked at now: later there may be no status left to say that it cannot be used.
        after = await self._prepare([], wanted_after, request)

        async def in_words() -> Question:
            speaker = 0 if splits else adapter
            return await self._question(request, messages, wanted_after, after, speaker)

        if not (offered := offered_tools(request)):
            question, later = await in_words(), None
        else:
            prepared = await self._prepare(offered, wanted, request)
            question = await self._question(request, messages, wanted, prepared, adapter)
            later = None if wanted.min_calls else in_words
        made = made_calls(messages) if later and not self.repeats_calls else ()
        stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
        means = Means(self.tokenizer, self.prompt_format, self.engine, self.workshop)
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
        wanted: OutputSpec,
        prepared: Prepared,
        adapter: int,
    ) -> Question:
        tools = [self.prompt_format.escape_tool_control_tokens(tool) for tool in prepared.tools]
        prompt = self.prompt_format.render_prompt(messages, tools)
        most = self.limits.context_tokens
        if len(prompt) > CHARACTERS_PER_TOKEN * most:
            raise _too_long(f"The prompt has {len(prompt)} letters", most)
        tokens = await asyncio.to_thread(prompt_tokens, self.tokenizer, prompt, self.prompt_format)
        room = most - len(tokens)
        if room < 1:
            raise _too_long(f"The prompt has {len(tokens)} tokens", most)
        limit = request.max_completion_tokens or request.max_tokens or self.limits.answer_tokens
        limit = min(limit, self.limits.answer_tokens, room)
        matcher = await self._matcher(prepared)
        return Question(tokens, prepared, matcher, wanted.schema, adapter, limit)

    async def _prepare(
        self, offered: Sequence[dict[str, Json]], wanted: OutputSpec, request: ChatRequest
    ) -> Prepared:
        if not offered and wanted.schema is None:
            return NOTHING_HELD
        special = tuple(sorted(self.constrainer.special_markers))
        order = Order(self.prompt_format.name, special, tuple(offered), wanted, is_strict(request))
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
            matcher = await asyncio.to_thread(self.constrainer.compile, text)
            if matcher.is_error():
                raise Fault(
                    422, "The schemas of this request cannot be compiled", code="bad_schema"
                )
            self._compiled[text] = matcher
            if len(self._compiled) > MAX_KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(text)
        return self._compiled[text]


def _too_long(text: str, most: int) -> Fault:
    text = f"{text}; with its answer there is room for {most} tokens"
    return Fault(400, text, "messages", "context_length_exceeded")

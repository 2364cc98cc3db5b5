"""The chat service: turns a request into prompts and grammars, and starts its answers."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from calltune.data.batching import prompt_tokens
from calltune.formats import Format
from calltune.formats.grammar import OutputSpec
from calltune.formats.repeats import NewCalls
from calltune.generation.constraints import Constrainer
from calltune.serving.answers import Answers, Runtime
from calltune.serving.engine import Engine
from calltune.serving.errors import APIError
from calltune.serving.generation_input import GenerationInput
from calltune.serving.grammar_jobs import CompileRequest, CompileResult
from calltune.serving.grammar_pool import CACHE_SIZE, GrammarPool
from calltune.serving.limits import Limits, check_sizes
from calltune.serving.request_messages import requested_messages
from calltune.serving.request_options import (
    calls_since_user,
    offered_tools,
    output_with_tools,
    output_without_tools,
    requested_samplings,
    requested_stop_strings,
    strict_schemas,
)
from calltune.serving.request_schema import ChatRequest
from calltune.serving.tool_list import left_out_headers
from calltune.serving.unenforced import unenforced_headers
from calltune.tools.shortlist import MAX_CHARACTERS_PER_TOKEN, Shortlist, count_tokens, fit_prompt
from calltune.types import Json, Message, Tool

FREE_TEXT = CompileResult((), {}, None)
"""For answers in free text, without a grammar."""


@dataclass(slots=True)
class Service:
    """A model with its adapters, ready for chat requests."""

    tokenizer: Any
    prompt_format: Format
    models: dict[str, int]
    """The model names that requests may give, and the number of the adapter each stands for."""
    engine: Engine
    constrainer: Constrainer
    limits: Limits
    text_model: Literal["base", "tuned"] = "base"
    """Which model writes text. Adapters are trained to decide on calls, and write poor text."""
    repeats_calls: bool = False
    """Whether a call may be repeated that was made since the user's last message."""
    has_base: bool = True
    """Whether adapter 0 is the base model; else the only adapter is part of the model."""
    grammar_pool: GrammarPool = field(default_factory=GrammarPool)
    _matchers: OrderedDict[str, Any] = field(default_factory=OrderedDict)

    async def start(self) -> None:
        """Start the engine and the grammar workers, in the event loop that runs now."""
        self.engine.start()
        await self.grammar_pool.start()

    async def stop(self) -> None:
        """End what was started."""
        await self.grammar_pool.close()
        await asyncio.to_thread(self.engine.stop)

    async def answer(self, request: ChatRequest) -> Answers:
        """The answers to a request, not started yet; all that can be checked before has been.

        Raises:
            APIError: the model is unknown (404), the request is too large, its messages or schemas
                cannot be used (400, 422), or the server is at capacity (429).
        """
        adapter = self._adapter(request.model)
        check_sizes(request, self.limits)
        samplings = requested_samplings(request)
        self.engine.check_capacity(len(samplings))
        messages = [
            self.prompt_format.escape_control_tokens(each)
            for each in requested_messages(request.messages)
        ]
        text_is_separate = self.text_model == "base" and adapter != 0
        text_output = output_without_tools(request)
        # Compiled now: later the response may have begun, and its status could not change.
        text_compiled = await self._compile([], text_output, request)

        async def text_input() -> GenerationInput:
            writer = 0 if text_is_separate else adapter
            return await self._input(request, messages, text_output, text_compiled, writer)

        runtime = Runtime(self.tokenizer, self.prompt_format, self.engine, self.grammar_pool)
        stop_strings = requested_stop_strings(request)
        if not (offered := offered_tools(request)):
            headers = unenforced_headers(text_compiled.grammar)
            only = await text_input()
            return Answers(runtime, only, samplings, stop_strings=stop_strings, headers=headers)
        output = output_with_tools(request, text_is_separate)
        shortlist = await self._shortlist(offered, messages)
        compiled = await self._compile([tool.raw for tool in shortlist.tools], output, request)
        first = await self._input(request, messages, output, compiled, adapter)
        headers = left_out_headers(shortlist) | unenforced_headers(
            compiled.grammar, text_compiled.grammar
        )
        # Adapters are trained on which calls to make, the same one twice if that was right.
        drops_repeats = not self.repeats_calls and self.has_base and adapter == 0
        if output.min_calls:
            new_calls = NewCalls((), drops_repeats)
            return Answers(runtime, first, samplings, None, new_calls, stop_strings, headers)
        earlier = () if self.repeats_calls else calls_since_user(messages)
        new_calls = NewCalls(earlier, drops_repeats)
        return Answers(runtime, first, samplings, text_input, new_calls, stop_strings, headers)

    def _adapter(self, name: str) -> int:
        if name not in self.models:
            known = ", ".join(self.models)
            text = f"There is no model {name!r:.100}; there are: {known}"
            raise APIError(404, text, "model", "model_not_found")
        return self.models[name]

    async def _shortlist(
        self, offered: Sequence[dict[str, Json]], messages: Sequence[Message]
    ) -> Shortlist:
        """The tools that the context can hold."""
        tools = [
            Tool(each["name"], each["description"], each["parameters"], each) for each in offered
        ]
        return await asyncio.to_thread(
            fit_prompt,
            tools,
            messages,
            self.prompt_format,
            lambda text: count_tokens(self.tokenizer, text),
            self.limits.context_tokens,
        )

    async def _compile(
        self, offered: Sequence[dict[str, Json]], output: OutputSpec, request: ChatRequest
    ) -> CompileResult:
        if not offered and output.schema is None:
            return FREE_TEXT
        markers = tuple(sorted(self.constrainer.special_markers))
        return await self.grammar_pool.compile(
            CompileRequest(
                self.prompt_format.name, markers, tuple(offered), output, strict_schemas(request)
            )
        )

    async def _input(
        self,
        request: ChatRequest,
        messages: Sequence[Message],
        output: OutputSpec,
        compiled: CompileResult,
        adapter: int,
    ) -> GenerationInput:
        """The request as a prompt in the model's format, tokenized, with its grammar and limit.

        Raises:
            APIError: the prompt is too long, or the grammar too much for this tokenizer.
        """
        tools = [self.prompt_format.escape_tool_control_tokens(tool) for tool in compiled.tools]
        prompt = self.prompt_format.render_prompt(messages, tools)
        context_tokens = self.limits.context_tokens
        if len(prompt) > MAX_CHARACTERS_PER_TOKEN * context_tokens:
            raise _too_long(f"The prompt has {len(prompt)} characters", context_tokens)
        tokens = await asyncio.to_thread(prompt_tokens, self.tokenizer, prompt, self.prompt_format)
        room = context_tokens - len(tokens)
        if room < 1:
            raise _too_long(f"The prompt has {len(tokens)} tokens", context_tokens)
        limit = request.max_completion_tokens or request.max_tokens or self.limits.answer_tokens
        limit = min(limit, self.limits.answer_tokens, room)
        matcher = await self._matcher(compiled)
        strict = strict_schemas(request)
        return GenerationInput(tokens, compiled, matcher, compiled.schema, adapter, limit, strict)

    async def _matcher(self, compiled: CompileResult) -> Any:
        """A matcher for the grammar with this model's tokens, to be copied; None without grammar.

        Raises:
            APIError: llguidance cannot compile it (422).
        """
        if compiled.grammar is None:
            return None
        text = compiled.grammar.text
        if text not in self._matchers:
            matcher = await asyncio.to_thread(self.constrainer.compile, text)
            if matcher.is_error():
                raise APIError(
                    422, "The schemas of this request cannot be compiled", code="bad_schema"
                )
            self._matchers[text] = matcher
            if len(self._matchers) > CACHE_SIZE:
                self._matchers.popitem(last=False)
        self._matchers.move_to_end(text)
        return self._matchers[text]


def _too_long(text: str, context_tokens: int) -> APIError:
    text = f"{text}; prompt and answer together are limited to {context_tokens} tokens"
    return APIError(400, text, "messages", "context_length_exceeded")

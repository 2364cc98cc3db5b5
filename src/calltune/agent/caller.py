"""`Caller`: a model that answers questions with tool calls, and can run them.

It decodes one answer at a time. Answers are constrained to the tools' schemas where the model's
cache allows it, and are checked against the whole of the schemas before any call is run.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from calltune.data.batching import prompt_tokens
from calltune.errors import OptionError, UnusableAnswer
from calltune.evaluation.judge import are_valid, invents_function
from calltune.evaluation.prompts import constrainer_of, prompt_format_of, stop_tokens
from calltune.files import dumps
from calltune.formats.grammar import ANY_CALLS, OutputSpec
from calltune.formats.repeats import NewCalls, repeats_text
from calltune.generation.engine import complete
from calltune.generation.sequence import Prompt, Sampling
from calltune.models.backend import choose
from calltune.models.loading import base_model_of, context_length, disable_adapter, load
from calltune.models.options import CallerOptions
from calltune.tools import Toolset, from_functions
from calltune.tools.shortlist import Shortlist, count_tokens, fit_prompt, left_out_text
from calltune.types import Message, Tool, ToolCall

Function = Callable[..., Any]
CALLS_OR_TEXT = OutputSpec(allows_text=True)
"""Tool calls, or a text instead of them."""
SECOND_ATTEMPT = Sampling(0.8)
"""How a question is answered again after a call that breaks its schema."""

log = logging.getLogger("calltune.agent")


class ContextTooShort(OptionError):
    """A conversation is longer than the model's context, even with the fewest tools."""


class ModelTurn(NamedTuple):
    """One turn of the model in a conversation: calls, or a text, or neither."""

    calls: tuple[ToolCall, ...]
    """Under the tool names of the prompt. They may be invalid, as not every schema can be
    enforced while decoding."""
    text: str = ""
    problem: str | None = None
    """Why the output parses neither as calls nor as text; None if it does."""
    notes: tuple[str, ...] = ()
    """What the user should know, such as tools that the context could not hold."""


class CallerAnswer(NamedTuple):
    """The calls for a question, and what the user should know of how they came about."""

    calls: tuple[ToolCall, ...]
    notes: tuple[str, ...] = ()
    """Sentences without a full stop: tools left out, an answer that was cut, repeated calls."""
    is_cut: bool = False
    """Whether a limit ended the answer within a later call, which is not among these."""


class Outcome(NamedTuple):
    """A call that was run, and what its function returned."""

    call: ToolCall
    value: Any


class _ReadAnswer(NamedTuple):
    calls: tuple[ToolCall, ...]
    notes: tuple[str, ...] = ()
    is_cut: bool = False
    problem: str | None = None
    """Why there are no calls to be read."""


class Caller:
    """A model that calls tools, loaded once.

    Answers are greedy, and constrained to the tools' schemas where the model allows it.
    """

    def __init__(
        self,
        model: str | None = None,
        adapter: str | Path | None = None,
        *,
        format: str | None = None,
        max_tokens: int = 512,
        device: str = "auto",
        repeat_calls: bool = False,
    ) -> None:
        """Load a model with its adapter.

        Args:
            model: a hub id, a folder, a .gguf file or pip:NAME; by default the model that the
                adapter was trained on.
            adapter: the folder of an adapter; by default none.
            format: the name of a prompt format; by default the one whose control tokens the model
                has.
            max_tokens: the maximum length of an answer, in tokens.
            device: auto, cpu or gpu.
            repeat_calls: keep a call that a model without an adapter makes twice in one answer.

        Raises:
            AdapterMismatch: the adapter was trained for another model.
            ModelNotFound: there is no such model or adapter.
            OptionError: neither model nor adapter is given, or the format is unknown, or is not
                given and cannot be told from the model.
        """
        if model is None and adapter is None:
            raise OptionError("No model; name one, or an adapter")
        backend = choose(device, is_step_small=True)

        # Imports MLX, which only `choose` may do first.
        from calltune.generation.kv_cache import has_plain_kv_cache

        folder = None if adapter is None else Path(adapter)
        reference = model or base_model_of(folder or Path())
        self._loaded = load(reference, backend, folder)
        self.prompt_format = prompt_format_of(format, self._loaded.tokenizer, reference)
        self.has_adapter = folder is not None
        self._max_tokens = max_tokens
        self._drops_repeats = not (repeat_calls or self.has_adapter)
        self._context_tokens = context_length(self._loaded.folder)
        self._stop_tokens = stop_tokens(self._loaded.tokenizer, [self.prompt_format.name])
        self._constrainer = (
            constrainer_of(self._loaded, self.prompt_format.name, self._stop_tokens)
            if has_plain_kv_cache(self._loaded.model)
            else None
        )

    @classmethod
    def from_options(cls, options: CallerOptions) -> "Caller":
        """The caller that a command's options describe; raises what `Caller` raises."""
        return cls(
            options.model,
            options.adapter_path,
            format=options.format,
            max_tokens=options.max_tokens,
            device=options.device,
        )

    def call(
        self, query: str | Sequence[Message], tools: Toolset | Sequence[Function]
    ) -> tuple[ToolCall, ...]:
        """The calls that the model makes for a question or a conversation; none is run.

        Args:
            query: a question, or the messages of a conversation that ends with one.
            tools: Python functions with type hints, or a `Toolset`.

        Returns:
            Valid calls under the tools' original names; empty if the model calls nothing. What the
            user should know of them is logged.

        Raises:
            ContextTooShort: question and tools are longer than the model's context.
            UnusableAnswer: the answer cannot be parsed, or a call does not satisfy its schema.
        """
        answer = self.ask(query, tools)
        for note in answer.notes:
            log.warning("%s", note)
        return answer.calls

    def ask(
        self, query: str | Sequence[Message], tools: Toolset | Sequence[Function]
    ) -> CallerAnswer:
        """As `call`, with what the user should know of the calls.

        Calls that are complete are kept where the limit cuts a later one.
        """
        toolset = tools if isinstance(tools, Toolset) else from_functions(tools)
        messages = [Message("user", query)] if isinstance(query, str) else list(query)
        fitting = self._fit(messages, toolset.tools)
        notes = [left_out_text(fitting)] if fitting.left_out else []
        by_name = {tool.name: tool for tool in toolset.tools}
        prompt = self._prompt(messages, fitting.tools)
        text = self._answer(prompt, fitting.tools)
        if self._breaks_schema(text, by_name):
            # Greedily the same call would come again.
            text = self._answer(prompt, fitting.tools, ANY_CALLS, SECOND_ATTEMPT)
        notes += self._left_out_of_grammar(fitting.tools)
        read = self._read(text)
        if read.problem is not None:
            raise UnusableAnswer(
                f"The answer cannot be read ({read.problem}): {text[:200]!r}; allow more "
                "tokens, or train the model for longer"
            )
        calls = read.calls
        notes += read.notes
        for call in calls:
            if problem := call_problem(call, by_name):
                raise UnusableAnswer(
                    f"{problem} ({dumps(call.arguments)[:200]}); ask again, or train the model "
                    "for longer"
                )
        originals = tuple(toolset.original_call(call) for call in calls)
        return CallerAnswer(originals, tuple(notes), read.is_cut)

    def run(self, query: str | Sequence[Message], tools: Sequence[Function]) -> list[Outcome]:
        """Ask for calls and run them in order; each call with what its function returned.

        Every call is checked before the first function runs. Arguments are converted to the
        functions' type hints, such as dataclasses and enums, with pydantic.

        Raises:
            OptionError: two functions have the same name, or as `call`.
            UnusableAnswer: as `call`, or the answer was cut; no function has been run.
        """
        from pydantic import validate_call

        by_name = {function.__name__: function for function in tools}
        if len(by_name) < len(tools):
            raise OptionError("Two functions have the same name; rename one")
        answer = self.ask(query, tools)
        if answer.is_cut:
            raise UnusableAnswer(answer.notes[-1])
        return [
            Outcome(call, validate_call(by_name[call.name])(**call.arguments))
            for call in answer.calls
        ]

    def next_turn(
        self, messages: Sequence[Message], tools: Toolset, output: OutputSpec = CALLS_OR_TEXT
    ) -> ModelTurn:
        """The model's next turn in a conversation; no call is run, and nothing is raised for it.

        `output` says how many calls the turn may make, and whether it may be a text.
        """
        fitting = self._fit(messages, tools.tools)
        notes = [left_out_text(fitting)] if fitting.left_out else []
        answer = self._answer(self._prompt(messages, fitting.tools), fitting.tools, output)
        read = self._read(answer)
        if read.problem is None:
            return ModelTurn(read.calls, notes=(*notes, *read.notes))
        if output.allows_text and self.prompt_format.call_prefix not in answer:
            return ModelTurn((), answer.strip(), notes=tuple(notes))
        return ModelTurn((), "", f"{read.problem}: {answer[:200]!r}", tuple(notes))

    def next_text(self, messages: Sequence[Message], *, use_adapter: bool = False) -> str:
        """The next turn as text, with no tools in the prompt.

        The base model writes it, because an adapter that was trained on calls alone makes a model
        worse at anything else. With `use_adapter` the tuned model does; and so it does where the
        whole model was trained, which leaves no base model to fall back on.
        """
        prompt = self._prompt(messages, ())
        with nullcontext() if use_adapter else disable_adapter(self._loaded.model):
            return self._answer(prompt, (), CALLS_OR_TEXT).strip()

    def _prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        return self.prompt_format.render_prompt(
            [self.prompt_format.escape_control_tokens(each) for each in messages], tools
        )

    def _read(self, text: str) -> "_ReadAnswer":
        """The calls in an answer: those before a cut, and each once where repeats are dropped."""
        parser = self.prompt_format.parser()
        complete = parser.feed(text)
        is_beginning = not parser.is_broken
        parsed = parser.finish()
        is_cut = parsed.problem is not None and is_beginning and bool(complete)
        if parsed.problem is not None and not is_cut:
            return _ReadAnswer((), problem=parsed.problem)
        new_calls = NewCalls(drops_repeats=self._drops_repeats)
        calls = tuple(call for call in complete if new_calls.is_new(call))
        notes = [repeats_text(new_calls.n_dropped)] if new_calls.n_dropped else []
        if is_cut:
            notes.append(
                f"The answer was cut after {len(calls)} complete calls; allow more than "
                f"{self._max_tokens} tokens for the others"
            )
        return _ReadAnswer(calls, tuple(notes), is_cut)

    def _fit(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Shortlist:
        """The tools that the model's context can hold, with the conversation."""
        if self._context_tokens is None:
            return Shortlist(tuple(tools))
        escaped = [self.prompt_format.escape_control_tokens(each) for each in messages]
        return fit_prompt(
            tools,
            escaped,
            self.prompt_format,
            lambda text: count_tokens(self._loaded.tokenizer, text),
            self._context_tokens,
        )

    def _breaks_schema(self, text: str, by_name: Mapping[str, Tool]) -> bool:
        """Whether a complete call in an answer breaks what the grammar leaves out."""
        calls = self.prompt_format.parser().feed(text)
        return any(call_problem(call, by_name) is not None for call in calls)

    def _left_out_of_grammar(self, tools: Sequence[Tool]) -> list[str]:
        if self._constrainer is None:
            return []
        left_out = self._constrainer.constrain(tools).unenforced_keywords
        return [f"Not enforced while answering: {'; '.join(left_out)}"] if left_out else []

    def _answer(
        self,
        prompt: str,
        tools: Sequence[Tool],
        output: OutputSpec = ANY_CALLS,
        sampling: Sampling | None = None,
    ) -> str:
        constraint = None
        if self._constrainer is not None:
            constraint = self._constrainer.constrain(tools, output).constraint
        tokens = prompt_tokens(self._loaded.tokenizer, prompt, self.prompt_format)
        context_tokens = self._context_tokens or len(tokens) + self._max_tokens
        room = context_tokens - len(tokens)
        if room < 1:
            raise ContextTooShort(
                f"The conversation takes {len(tokens)} tokens with its tools, and the model's "
                f"context is {context_tokens}"
            )
        constraint = None
        if self._constrainer is not None:
            constraint = self._constrainer.constrain(tools, output).constraint
        (completion,) = complete(
            self._loaded.model,
            [Prompt("", tokens, constraint, sampling)],
            stop_tokens=self._stop_tokens,
            max_tokens=min(self._max_tokens, room),
            batch_size=1,
        )
        return str(self._loaded.tokenizer.decode(completion.tokens))


def call_problem(call: ToolCall, tools: Mapping[str, Tool]) -> str | None:
    """What is wrong with a call, as a sentence without a full stop; None if it may be run.

    Decoding enforces most of a schema; this checks all of it. The sentences are also what a model
    is told about its calls, so another wording changes its answers.
    """
    if invents_function([call], tools):
        return f"There is no tool {call.name}"
    if not are_valid([call], tools):
        return f"The arguments of {call.name} do not keep to its schema"
    return None

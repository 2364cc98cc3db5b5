"""One line in Python: a question and tools in, calls out, or what the functions return."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from calltune.errors import OptionError, UnusableAnswer
from calltune.evaluation.judge import are_valid, invents_function
from calltune.files import dumps
from calltune.formats.grammar import ANY_CALLS, OutputSpec
from calltune.tools import Toolset, from_functions
from calltune.types import Message, Tool, ToolCall

Function = Callable[..., Any]
_CALLS_OR_WORDS = OutputSpec(allows_text=True)


class Turn(NamedTuple):
    """What a model says in one turn of a conversation: calls, words, or something else."""

    calls: tuple[ToolCall, ...]
    """By the names in the prompt; they may be wrong where they could not be held to schemas."""
    words: str = ""
    problem: str | None = None
    """Why neither calls nor words can be read."""


class Outcome(NamedTuple):
    """A call that was made, and what the function returned."""

    call: ToolCall
    value: Any


class Caller:
    """A model that calls tools, loaded once.

    Answers are held to the tools' schemas while they are written, where the model allows it.
    """

    def __init__(
        self,
        model: str | None = None,
        adapter: str | Path | None = None,
        *,
        format: str | None = None,
        max_tokens: int = 512,
        device: str = "auto",
    ) -> None:
        """Load a model (by default the one that the adapter was trained on) with its adapter.

        `format` is the prompt family that it was trained with; unless given, the one whose tokens
        the model has.

        Raises:
            ModelNotFound: no such model or adapter.
            OptionError: neither is given, or the format is not known or not told by the model.
        """
        from calltune.models.backend import choose

        if model is None and adapter is None:
            raise OptionError("No model; name one, or an adapter")
        backend = choose(device, is_step_small=True)

        from calltune.evaluation.prompts import constrainer_of, prompt_format_of, stop_tokens
        from calltune.generation.kv_cache import has_plain_kv_cache
        from calltune.models.loading import base_model_of, load

        folder = None if adapter is None else Path(adapter)
        reference = model or base_model_of(folder or Path())
        self._loaded = load(reference, backend, folder)
        self.prompt_format = prompt_format_of(format, self._loaded.tokenizer, reference)
        self.has_adapter = folder is not None
        self._max_tokens = max_tokens
        self._stops = stop_tokens(self._loaded.tokenizer, [self.prompt_format.name])
        can_be_held = has_plain_kv_cache(self._loaded.model)
        self._constrainer = (
            constrainer_of(self._loaded, self.prompt_format.name, self._stops)
            if can_be_held
            else None
        )

    def call(
        self, query: str | Sequence[Message], tools: Toolset | Sequence[Function]
    ) -> tuple[ToolCall, ...]:
        """The calls that the model makes for a question or a conversation; none is run.

        Raises:
            UnusableAnswer: it cannot be read, or a call does not keep to its tool's schema.
        """
        toolset = tools if isinstance(tools, Toolset) else from_functions(tools)
        messages = [Message("user", query)] if isinstance(query, str) else list(query)
        text = self._answer(self._prompt(messages, toolset.tools), toolset.tools)
        reading = self.prompt_format.parse(text)
        if reading.problem is not None:
            raise UnusableAnswer(
                f"The answer cannot be read ({reading.problem}): {text[:200]!r}; allow more "
                "tokens, or train the model for longer"
            )
        for call in reading.calls:
            _check(call, {tool.name: tool for tool in toolset.tools})
        return tuple(toolset.original_call(call) for call in reading.calls)

    def run(self, query: str | Sequence[Message], tools: Sequence[Function]) -> list[Outcome]:
        """Make the calls and run them in order: what they are and what came back.

        All calls keep to their tools' schemas before the first function is run. Arguments come as
        the type hints say: dataclasses, enums and the like are made of their JSON.

        Raises:
            OptionError: two functions of one name.
            UnusableAnswer: as `call`; no function has been run.
        """
        from pydantic import validate_call

        by_name = {function.__name__: function for function in tools}
        if len(by_name) < len(tools):
            raise OptionError("Two functions have the same name; rename one")
        calls = self.call(query, tools)
        return [
            Outcome(call, validate_call(by_name[call.name])(**call.arguments)) for call in calls
        ]

    def turn(
        self, messages: Sequence[Message], tools: Toolset, wanted: OutputSpec = _CALLS_OR_WORDS
    ) -> Turn:
        """The model's next turn in a conversation; no call is run, and none is an error."""
        text = self._answer(self._prompt(messages, tools.tools), tools.tools, wanted)
        reading = self.prompt_format.parse(text)
        if reading.problem is None:
            return Turn(reading.calls)
        if wanted.allows_text and self.prompt_format.call_prefix not in text:
            return Turn((), text.strip())
        return Turn((), "", f"{reading.problem}: {text[:200]!r}")

    def words(self, messages: Sequence[Message], *, tuned: bool = False) -> str:
        """The next turn in words, with no tools before the model.

        They are the base model's: an adapter that was trained for calls has unlearned to speak.
        With `tuned`, or where the adapter is a whole model, they are the adapter's.
        """
        from calltune.models.loading import disable_adapter

        prompt = self._prompt(messages, ())
        with nullcontext() if tuned else disable_adapter(self._loaded.model):
            return self._answer(prompt, (), _CALLS_OR_WORDS).strip()

    def _prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        return self.prompt_format.render_prompt(
            [self.prompt_format.escape_control_tokens(each) for each in messages], tools
        )

    def _answer(self, prompt: str, tools: Sequence[Tool], wanted: OutputSpec = ANY_CALLS) -> str:
        from calltune.data.batching import prompt_tokens
        from calltune.generation.engine import complete
        from calltune.generation.sequence import Prompt

        tokens = prompt_tokens(self._loaded.tokenizer, prompt, self.prompt_format)
        held = self._constrainer.constrain(tools, wanted).constraint if self._constrainer else None
        (completion,) = complete(
            self._loaded.model,
            [Prompt("", tokens, held)],
            stop_tokens=self._stops,
            max_tokens=self._max_tokens,
            batch_size=1,
        )
        return str(self._loaded.tokenizer.decode(completion.tokens))


def _check(call: ToolCall, tools: dict[str, Tool]) -> None:
    """Answers are held to the schemas, but not to all that a schema can say."""
    if invents_function([call], tools):
        raise UnusableAnswer(f"The model calls {call.name}, which is not on offer; ask again")
    if not are_valid([call], tools):
        raise UnusableAnswer(
            f"The model's arguments of {call.name} do not keep to its schema "
            f"({dumps(call.arguments)[:200]}); ask again, or train the model for longer"
        )

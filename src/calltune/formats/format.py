"""What a prompt family is: how it writes a prompt and calls, and how it reads calls back."""

import json
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from calltune.files import dumps
from calltune.formats.grammar import Grammar, OutputSpec
from calltune.formats.parser import StreamingParser
from calltune.types import Message, ParsedOutput, Tool, ToolCall


@dataclass(frozen=True, slots=True)
class Format:
    """A prompt family.

    Laws: `read(write(calls)) == Reading(calls)` for all calls, none included, whose JSON is nested
    less than `DEEPEST` deep; a text is read the same, however it is cut into pieces; and the
    grammar of some tools accepts what is written of calls that keep to their schemas, arguments
    in the schema's order.
    """

    name: str
    render_prompt: Callable[[Sequence[Message], Sequence[Tool]], str]
    """Messages and tools -> the prompt, up to where the model's answer begins."""
    render_calls: Callable[[Sequence[ToolCall]], str]
    """Calls -> what the model should answer, without `completion_end`."""
    grammar: Callable[[Sequence[Tool], Container[str], Container[str], OutputSpec], Grammar]
    """The tools on offer, the names of those whose schemas are not held to (any object will do for
    arguments), the markers that the tokenizer has as tokens which no text can spell, and how many
    calls are wanted, or what in their place -> what an answer may be."""
    call_prefix: str
    """What calls begin with, no call included, and nothing else that a grammar admits."""
    parser: Callable[[], StreamingParser]
    """Reads one answer, without its end token, as it comes."""
    bos: str
    """The text that a prompt begins with where the family has a BOS token, else ""."""
    completion_end: str
    """What follows the answer in a training text."""
    stop_tokens: tuple[str, ...]
    """The tokens that end an answer when a model writes them."""
    markers: tuple[str, ...]
    """Control tokens: content that holds one of these would break the turns apart."""
    tool_parser: str | None = None
    """Which of mlx_lm's tool parsers reads what `render_calls` writes; None where none does."""

    @property
    def chat_template(self) -> str:
        """What `render_prompt` does, for programs that take a chat template in Jinja.

        Law: for messages and tools as OpenAI's API has them, it gives `render_prompt`'s prompt.
        """
        return (files("calltune.formats") / f"{self.name}.jinja").read_text("utf-8")

    def escape_control_tokens(self, message: Message) -> Message:
        """The message with a space in each marker that it holds, so that it stays one turn."""
        calls = tuple(
            ToolCall(self._tame(call.name), json.loads(self._tame(dumps(call.arguments))))
            for call in message.calls
        )
        content, tool_name = self._tame(message.content), self._tame(message.tool_name)
        return replace(message, content=content, calls=calls, tool_name=tool_name)

    def escape_tool_control_tokens(self, tool: Tool) -> Tool:
        """The tool, written in prompts with a space in each marker."""
        return replace(tool, raw=json.loads(self._tame(dumps(tool.raw))))

    def parse(self, text: str) -> ParsedOutput:
        """The calls in a model's whole answer, without its end token, or why there are none."""
        parser = self.parser()
        parser.feed(text)
        return parser.finish()

    def _tame(self, text: str) -> str:
        for marker in self.markers:
            text = text.replace(marker, f"{marker[0]} {marker[1:]}")
        return text

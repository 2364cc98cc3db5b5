"""What a prompt format is: how it renders a prompt and calls, and how it parses calls back."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from calltune.files import dumps
from calltune.formats.grammar import MakeGrammar
from calltune.formats.parser import StreamingParser
from calltune.types import Message, ParsedOutput, Tool, ToolCall


@dataclass(frozen=True, slots=True)
class Format:
    """A prompt format: rendering, parsing and the grammar of answers, for one family of models.

    Laws: `parse(render_calls(calls)) == ParsedOutput(calls)` for all calls, none included, whose
    JSON is nested less than `MAX_DEPTH` deep; a text is parsed the same however it is cut into
    chunks; and the grammar for some tools accepts the rendering of calls that satisfy the tools'
    schemas, arguments in the schema's order.
    """

    name: str
    render_prompt: Callable[[Sequence[Message], Sequence[Tool]], str]
    """Messages and tools -> the prompt, up to where the model's answer begins."""
    render_calls: Callable[[Sequence[ToolCall]], str]
    """Calls -> what the model should answer, without `completion_end`."""
    grammar: MakeGrammar
    """The grammar of an answer, from: the tools on offer; the names of those whose arguments may be
    any object; the control tokens that the tokenizer has as tokens which no text can spell; and
    what an answer may contain."""
    call_prefix: str
    """What calls begin with, "no call" included, and nothing else that a grammar admits."""
    parser: Callable[[], StreamingParser]
    """Makes a parser for one answer without its end token."""
    bos: str
    """The BOS token's text that a prompt begins with; "" where the models have none."""
    completion_end: str
    """What follows the answer in a training text."""
    stop_tokens: tuple[str, ...]
    """The tokens that end an answer when a model writes them."""
    markers: tuple[str, ...]
    """Control tokens, which message contents must not hold: they would end a turn or begin one."""
    tool_parser: str | None = None
    """The name of mlx_lm's tool parser for what `render_calls` writes; None where it has none."""

    @property
    def chat_template(self) -> str:
        """The format as a chat template in Jinja, as transformers and llama.cpp take it.

        Law: for messages and tools as OpenAI's API has them, it gives `render_prompt`'s prompt.
        """
        return (files("calltune.formats") / f"{self.name}.jinja").read_text("utf-8")

    def escape_control_tokens(self, message: Message) -> Message:
        """The message with a space in each control token in it, so that it stays one turn."""
        calls = tuple(
            ToolCall(
                self._escape(call.name),
                json.loads(self._escape(dumps(call.arguments))),
                self._escape(call.malformed),
            )
            for call in message.calls
        )
        content, tool_name = self._escape(message.content), self._escape(message.tool_name)
        return replace(message, content=content, calls=calls, tool_name=tool_name)

    def escape_tool_control_tokens(self, tool: Tool) -> Tool:
        """The tool with a space in each control token that its JSON holds."""
        return replace(tool, raw=json.loads(self._escape(dumps(tool.raw))))

    def parse(self, text: str) -> ParsedOutput:
        """The calls in a model's whole answer, without its end token, or why none can be parsed."""
        parser = self.parser()
        parser.feed(text)
        return parser.finish()

    def _escape(self, text: str) -> str:
        for marker in self.markers:
            text = text.replace(marker, f"{marker[0]} {marker[1:]}")
        return text


def arguments_text(call: ToolCall) -> str:
    """A call's arguments as text: JSON, or in history what was written in its place."""
    return call.malformed or dumps(call.arguments)

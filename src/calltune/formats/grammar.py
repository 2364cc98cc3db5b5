"""What an answer may be: the grammar of a format's calls to the tools on offer."""

from collections.abc import Container, Sequence
from typing import NamedTuple

from calltune.calls import Tool
from calltune.formats.lark import Lark, either, literal
from calltune.formats.schema_merge import Impossible
from calltune.formats.schema_rules import SchemaRules
from calltune.jsonl import dumps

MOST_CALLS = 32
"""A grammar admits so many calls in one answer."""


class Grammar(NamedTuple):
    """A grammar in llguidance's Lark syntax."""

    text: str
    notes: tuple[str, ...]
    """What of the tools' schemas it does not hold answers to."""


class CallRules:
    """The rules for one call to any of several tools, `"name": …, "arguments": …`."""

    def __init__(self, tools: Sequence[Tool], is_quoted: bool, loose: Container[str]) -> None:
        self.lark = Lark()
        self.notes: dict[str, None] = {}
        self._is_quoted = is_quoted
        self._loose = loose
        bodies = [body for tool in tools if (body := self._of_tool(tool))]
        self.call = self.lark.rule(either(bodies)) if bodies else None
        """The rule; None where no tool can be called."""

    def grammar(self, start: str) -> Grammar:
        """The finished grammar."""
        return Grammar(self.lark.text(start), tuple(self.notes))

    def _of_tool(self, tool: Tool) -> str | None:
        rules = SchemaRules(
            self.lark,
            tool.parameters,
            self._is_quoted,
            lambda what: self.notes.update({f"{tool.name}: {what}": None}),
        )
        try:
            arguments = rules.anything() if tool.name in self._loose else rules.arguments()
        except Impossible:
            self.notes[f"{tool.name}: no arguments satisfy its schema, so it is not called"] = None
            return None
        quote = '"' if self._is_quoted else ""
        opening = literal(f'"name": {dumps(tool.name)}, "arguments": {quote}')
        return f"{opening} {arguments} {literal(quote)}" if quote else f"{opening} {arguments}"


def marker(text: str, special: Container[str]) -> str:
    """A format's marker: text, or a token of its own that no text can spell."""
    return text if text in special else literal(text)

"""What an answer may be: the grammar of a format's calls to tools, or of what stands for them."""

from collections.abc import Container, Sequence
from typing import NamedTuple

from calltune.errors import UnusableSchema
from calltune.files import dumps
from calltune.schemas.grammar import SchemaRules
from calltune.schemas.lark import Lark, either, literal
from calltune.schemas.merge import Impossible
from calltune.types import Json, Tool

MAX_CALLS = 32
"""A grammar admits so many calls in one answer."""
THE_ANSWER = "the answer"
"""What notes on the schema of an answer without calls begin with; no tool is called so."""


class OutputSpec(NamedTuple):
    """How many calls an answer may make, and what else it may be."""

    min_calls: int = 0
    """From 1 on, "no call" is not admitted."""
    max_calls: int = MAX_CALLS
    """0 is as if there were no tools."""
    allows_text: bool = False
    """Whether a text may stand in the place of calls."""
    schema: Json | None = None
    """JSON that satisfies this JSON Schema may stand in the place of calls; never beside words."""


ANY_CALLS = OutputSpec()
"""No call, or several, and nothing else."""


class Grammar(NamedTuple):
    """A grammar in llguidance's Lark syntax."""

    text: str
    notes: tuple[str, ...]
    """What of the schemas it does not hold answers to: `tool: what`, or `the answer: what`."""


class AnswerRules:
    """The rules for one call to any of several tools, and for what may stand in calls' place."""

    def __init__(
        self, tools: Sequence[Tool], loose: Container[str], wanted: OutputSpec, is_quoted: bool
    ) -> None:
        """With the names of tools whose schemas are not held to.

        Raises:
            UnusableSchema: nothing satisfies the schema of the answer.
        """
        assert not (wanted.allows_text and wanted.schema is not None), "words would do for any JSON"
        self.lark = Lark()
        self.notes: dict[str, None] = {}
        self._is_quoted = is_quoted
        self._loose = loose
        self._wanted = wanted
        self._offered = tools if wanted.max_calls else ()
        bodies = [body for tool in self._offered if (body := self._of_tool(tool))]
        self.call = self.lark.rule(either(bodies)) if bodies else None
        """The rule for `"name": …, "arguments": …`; None where no tool can be called."""

    def grammar(self, none: str, calls: str | None, words: str) -> Grammar:
        """The finished grammar, of what the family writes: no call, calls, and words.

        `none` and `calls` are bodies of rules, `words` is that of a terminal.

        Raises:
            UnusableSchema: no answer is left.
        """
        others = self._others(words)
        may_be_none = not self._wanted.min_calls and bool(self._offered or not others)
        bodies = [*([none] if may_be_none else []), *([calls] if calls else []), *others]
        if not bodies:
            raise UnusableSchema(
                "A call is wanted, but no tool can be called; offer one whose schema can be met"
            )
        return Grammar(self.lark.text(" | ".join(bodies)), tuple(self.notes))

    def _others(self, words: str) -> list[str]:
        """What may stand in the place of calls."""
        if self._wanted.allows_text:
            return [self.lark.terminal(words)]
        schema = self._wanted.schema
        if schema is None:
            return []
        try:
            return [self._rules(schema, THE_ANSWER, is_quoted=False).whole()]
        except Impossible:
            raise UnusableSchema(
                f"No answer satisfies this JSON Schema: {dumps(schema)[:200]}; correct it"
            ) from None

    def _of_tool(self, tool: Tool) -> str | None:
        rules = self._rules(tool.parameters, tool.name, self._is_quoted)
        try:
            arguments = rules.anything() if tool.name in self._loose else rules.arguments()
        except Impossible:
            self.notes[f"{tool.name}: no arguments satisfy its schema, so it is not called"] = None
            return None
        quote = '"' if self._is_quoted else ""
        opening = literal(f'"name": {dumps(tool.name)}, "arguments": {quote}')
        return f"{opening} {arguments} {literal(quote)}" if quote else f"{opening} {arguments}"

    def _rules(self, schema: Json, of: str, is_quoted: bool) -> SchemaRules:
        def note(what: str) -> None:
            self.notes[f"{of}: {what}"] = None

        return SchemaRules(self.lark, schema, is_quoted, note)


def marker(text: str, special: Container[str]) -> str:
    """A format's marker: text, or a token of its own that no text can spell."""
    return text if text in special else literal(text)

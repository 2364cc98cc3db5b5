"""The grammar of an answer: calls to tools, in a prompt format's form, or what may replace them.

Source: llguidance's Lark syntax, which `generation/constraints.py` compiles to token masks.
"""

from collections.abc import Callable, Collection, Container, Sequence
from typing import Any, NamedTuple

from calltune.errors import UnusableSchema
from calltune.files import dumps
from calltune.schemas.exclusion import Unsatisfiable
from calltune.schemas.grammar import SchemaCompiler
from calltune.schemas.lark import LarkGrammar, TooLarge, literal, one_of
from calltune.types import Json, Tool

MAX_CALLS = 32
"""The most calls that a grammar admits in one answer, by default."""
WHOLE_SCHEMA = "its whole schema"
"""The note on a schema that no grammar could be compiled for."""
THE_ANSWER = "the answer"
"""The subject of notes on the schema of an answer without calls; no tool can have this name."""


class OutputSpec(NamedTuple):
    """What an answer may contain: how many calls, and text or JSON in their place."""

    min_calls: int = 0
    """1 or more excludes "no call"."""
    max_calls: int = MAX_CALLS
    """0: as if no tools were offered."""
    allows_text: bool = False
    """Whether text may replace the calls."""
    schema: Json | None = None
    """JSON that satisfies this JSON Schema may replace the calls; not together with text."""


ANY_CALLS = OutputSpec()
"""Calls or "no call", and nothing else."""


class Grammar(NamedTuple):
    """A grammar in llguidance's Lark syntax."""

    text: str
    notes: tuple[str, ...]
    """Which parts of the schemas it does not enforce: `tool: what`, or `the answer: what`."""


class CompiledGrammar(NamedTuple):
    """A grammar, and the matcher that it was compiled to."""

    grammar: Grammar
    matcher: Any


MakeGrammar = Callable[[Sequence[Tool], Container[str], Collection[str], OutputSpec], Grammar]
"""What `Format.grammar` is."""


def strictest(
    make: MakeGrammar,
    tools: Sequence[Tool],
    control_tokens: Collection[str],
    output: OutputSpec,
    compiled: Callable[[str], Any],
    loose: Sequence[str] = (),
) -> CompiledGrammar | None:
    """The grammar that enforces as much as can be compiled; None where none can be.

    At first whole schemas are left out that cannot be compiled alone, then the largest ones, until
    the rest can be compiled together.

    Args:
        make: the prompt format's `grammar`.
        tools: the tools on offer.
        control_tokens: as `make` takes them.
        output: what the answer may contain.
        compiled: gives the matcher of a grammar's text; None where it cannot be compiled.
        loose: the tools whose schemas are left out from the beginning.

    Raises:
        UnusableSchema: no answer is possible, or that of a schema cannot be compiled.
    """

    def attempt(
        some: Sequence[Tool], free: Collection[str], wanted: OutputSpec
    ) -> CompiledGrammar | None:
        try:
            grammar = make(some, free, control_tokens, wanted)
        except TooLarge:
            return None
        matcher = compiled(grammar.text)
        notes = (*grammar.notes, *(f"{name}: {WHOLE_SCHEMA}" for name in free))
        return None if matcher is None else CompiledGrammar(Grammar(grammar.text, notes), matcher)

    if (found := attempt(tools, loose, output)) is not None:
        return found
    alone = OutputSpec(max_calls=0, schema=output.schema)
    if output.schema is not None and attempt((), (), alone) is None:
        raise UnusableSchema(
            f"Answers cannot be constrained to this JSON Schema: {dumps(output.schema)[:200]}; "
            "it is too large: simplify it"
        )
    broken = [tool.name for tool in tools if attempt([tool], (), ANY_CALLS) is None]
    by_size = sorted(tools, key=lambda tool: -len(dumps(tool.parameters)))
    count = 0
    while found is None and count < 2 * len(tools):
        names = dict.fromkeys([*loose, *broken, *(tool.name for tool in by_size[:count])])
        found = attempt(tools, list(names), output)
        count = max(1, 2 * count)
    return found


class AnswerGrammar:
    """Builds the grammar of an answer; a prompt format says how calls are written around it."""

    def __init__(
        self,
        tools: Sequence[Tool],
        unconstrained: Container[str],
        control_tokens: Collection[str],
        output: OutputSpec,
        is_quoted: bool,
    ) -> None:
        """Compile the rules for one call.

        Args:
            tools: the tools on offer.
            unconstrained: the names of those whose arguments may be any object.
            control_tokens: those that an answer ends with or begins anew; no value can hold them.
            output: what the answer may contain.
            is_quoted: whether arguments are written as JSON within a JSON string.

        Raises:
            UnusableSchema: nothing satisfies the schema of the answer.
        """
        assert not (output.allows_text and output.schema is not None), "any JSON is text"
        self.lark = LarkGrammar()
        self.notes: dict[str, None] = {}
        self._is_quoted = is_quoted
        self._unconstrained = unconstrained
        self._control_tokens = control_tokens
        self._output = output
        self._offered = tools if output.max_calls else ()
        bodies = [body for tool in self._offered if (body := self._of_tool(tool))]
        self.call = self.lark.rule(one_of(bodies)) if bodies else None
        """The rule for `"name": …, "arguments": …`; None where no tool can be called."""

    def grammar(self, no_call: str, calls: str | None, text: str) -> Grammar:
        """The finished grammar.

        Args:
            no_call: the body of the rule for an answer that calls nothing.
            calls: the body of the rule for calls; None where no tool can be called.
            text: the body of the terminal for an answer in words.

        Raises:
            UnusableSchema: no answer is possible.
        """
        others = self._replacements(text)
        may_be_none = not self._output.min_calls and bool(self._offered or not others)
        bodies = [*([no_call] if may_be_none else []), *([calls] if calls else []), *others]
        if not bodies:
            raise UnusableSchema(
                "A call is wanted, but no tool can be called; offer one whose schema can be met"
            )
        return Grammar(self.lark.text(" | ".join(bodies)), tuple(self.notes))

    def _replacements(self, text: str) -> list[str]:
        """The bodies of what may replace calls."""
        if self._output.allows_text:
            return [self.lark.terminal(text)]
        schema = self._output.schema
        if schema is None:
            return []
        try:
            return [self._rules(schema, THE_ANSWER, is_quoted=False).whole()]
        except Unsatisfiable:
            raise UnusableSchema(
                f"No answer satisfies this JSON Schema: {dumps(schema)[:200]}; correct it"
            ) from None

    def _of_tool(self, tool: Tool) -> str | None:
        rules = self._rules(tool.parameters, tool.name, self._is_quoted)
        try:
            arguments = rules.anything() if tool.name in self._unconstrained else rules.arguments()
        except Unsatisfiable:
            self.notes[f"{tool.name}: no arguments satisfy its schema, so it is not called"] = None
            return None
        quote = '"' if self._is_quoted else ""
        opening = literal(f'"name": {dumps(tool.name)}, "arguments": {quote}')
        return f"{opening} {arguments} {literal(quote)}" if quote else f"{opening} {arguments}"

    def _rules(self, schema: Json, of: str, is_quoted: bool) -> SchemaCompiler:
        def note(what: str) -> None:
            self.notes[f"{of}: {what}"] = None

        return SchemaCompiler(self.lark, schema, is_quoted, self._control_tokens, note)


def marker(text: str, special: Container[str]) -> str:
    """The symbol of a control token: its own token where the tokenizer has one, else its text."""
    return text if text in special else literal(text)

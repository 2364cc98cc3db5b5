"""What the grammar of one schema accepts, without a model."""

from typing import Any, NamedTuple

from calltune.files import dumps
from calltune.schemas.grammar import SchemaCompiler
from calltune.schemas.lark import LarkGrammar, matcher_of_bytes
from calltune.types import Json


class SchemaGrammar(NamedTuple):
    """The compiled grammar of a schema's values, and the keywords that it leaves out."""

    matcher: Any
    notes: tuple[str, ...]
    is_quoted: bool

    def accepts(self, value: Json) -> bool:
        """Whether the grammar accepts a value as calltune writes it."""
        return self.accepts_text(dumps(value))

    def accepts_text(self, text: str) -> bool:
        """Whether the grammar accepts JSON text, which is put in a string if it is quoted."""
        written = dumps(text)[1:-1] if self.is_quoted else text
        matcher, data = self.matcher.deep_copy(), list(written.encode())
        return bool(matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting())


def grammar_of(
    schema: Json, is_quoted: bool = False, control_tokens: tuple[str, ...] = ()
) -> SchemaGrammar:
    """The grammar of a schema; raises `Unsatisfiable` where no value satisfies it."""
    notes: dict[str, None] = {}
    lark = LarkGrammar()
    compiler = SchemaCompiler(
        lark, schema, is_quoted, control_tokens, lambda note: notes.update({note: None})
    )
    matcher = matcher_of_bytes(lark.text(compiler.whole()))
    assert not matcher.is_error(), matcher.get_error()[:300]
    return SchemaGrammar(matcher, tuple(notes), is_quoted)

"""What an answer is generated from: a prompt's tokens, the grammar, and the limits."""

import secrets
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from calltune.formats.grammar import THE_ANSWER
from calltune.generation.constraints import GrammarConstraint
from calltune.generation.sequence import Prompt, Sampling
from calltune.serving.grammar_jobs import CompileResult
from calltune.types import Json


class GenerationInput(NamedTuple):
    """A tokenized prompt, and what the answers to it must keep to."""

    tokens: list[int]
    compiled: CompileResult
    matcher: Any
    """The llguidance matcher that each answer's constraint is a copy of; None for free text."""
    schema: Json
    """The JSON Schema of the whole answer; None if it is calls or text."""
    adapter: int
    """0 is the base model."""
    max_tokens: int
    strict: Collection[str] = ()
    """As `CompileRequest.strict`."""

    def prompt(self, sampling: Sampling | None, begun: Sequence[int] = ()) -> Prompt:
        """A new prompt for the engine, for one answer, of which the tokens `begun` are kept."""
        constraint = None if self.matcher is None else GrammarConstraint(self.matcher.deep_copy())
        if constraint is not None:
            for token in begun:
                constraint.accept(token)
        prompt_id = secrets.token_hex(12)
        max_tokens = max(1, self.max_tokens - len(begun))
        tokens = [*self.tokens, *begun]
        return Prompt(prompt_id, tokens, constraint, sampling, max_tokens, self.adapter)

    @property
    def can_call(self) -> bool:
        """Whether the answer may be calls."""
        return bool(self.compiled.tools)

    def unenforced_keywords(self, tool: str = THE_ANSWER) -> list[str]:
        """The parts of a tool's schema, or of the answer's own, that the grammar leaves out."""
        notes = self.compiled.grammar.notes if self.compiled.grammar else ()
        return [note for note in notes if note.startswith(f"{tool}: ")]

"""What a model is asked: a prompt, and what its answer keeps to."""

import secrets
from typing import Any, NamedTuple

from calltune.calls import Json
from calltune.decode.constrain import Constraint
from calltune.decode.row import Prompt, Sampling
from calltune.formats.grammar import THE_ANSWER
from calltune.serve.preparing import Prepared


class Question(NamedTuple):
    """Asked once for each answer that is wanted."""

    tokens: list[int]
    prepared: Prepared
    matcher: Any
    """What the answers' constraints are copies of; None where nothing holds them."""
    schema: Json
    """Of answers in JSON; None where they are calls or words."""
    adapter: int
    """0 is the base model."""
    max_tokens: int

    def prompt(self, sampling: Sampling | None) -> Prompt:
        """For one answer."""
        constraint = None if self.matcher is None else Constraint(self.matcher.deep_copy())
        name = secrets.token_hex(12)
        return Prompt(name, self.tokens, constraint, sampling, self.max_tokens, self.adapter)

    @property
    def can_call(self) -> bool:
        """Whether the answer may be calls."""
        return bool(self.prepared.tools)

    def not_held(self, tool: str | None = None) -> list[str]:
        """What of a tool's schema, or of that of the whole answer, the grammar does not hold."""
        notes = self.prepared.grammar.notes if self.prepared.grammar else ()
        return [note for note in notes if note.startswith(f"{tool or THE_ANSWER}: ")]

"""Answers held to a grammar, through llguidance: which tokens may come next, and which must."""

import time
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llguidance import LLExecutor, LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask_par
from numpy.typing import NDArray

from calltune.calls import Tool
from calltune.errors import UnusableSchema
from calltune.formats import Format
from calltune.formats.grammar import ANY_CALLS, Wanted
from calltune.formats.lark import TooLarge
from calltune.jsonl import dumps

MOST_SECONDS = 2.0
"""The tokens of an answer take milliseconds together; a grammar that takes longer is given up."""


class Constraint:
    """One answer as far as it has come, and the grammar that it keeps to."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher
        self._seconds = 0.0
        """What its tokens took so far, while all other answers waited."""

    def accept(self, token: int) -> None:
        """The answer goes on with this token."""
        started = time.perf_counter()
        self._matcher.consume_token(token)
        self._seconds += time.perf_counter() - started

    def forced(self) -> list[int]:
        """The tokens that must come now; often none."""
        if self.is_complete:
            return []
        started = time.perf_counter()
        tokens = list(self._matcher.compute_ff_tokens())
        self._seconds += time.perf_counter() - started
        return tokens

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow but the end."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def problem(self) -> str | None:
        """Why the answer cannot be held to the grammar any more."""
        if self._seconds > MOST_SECONDS:
            return f"its grammar took more than {MOST_SECONDS:g} seconds"
        return self._matcher.get_error() or None

    def ask(self, index: int) -> tuple[LLMatcher, int]:
        """What `allowed_words` asks for the row of this index."""
        return self._matcher, index


class Held(NamedTuple):
    """A constraint for one answer, and what of the tools' schemas it does not hold."""

    constraint: Constraint | None
    """None where there is none to be had at all."""
    notes: tuple[str, ...]


class _Prepared(NamedTuple):
    """What is made once for the same tools."""

    matcher: LLMatcher | None
    notes: tuple[str, ...]


class Constrainer:
    """Makes constraints for the answers of one model in one format."""

    def __init__(self, tokenizer: Any, family: Format, stops: Sequence[int], n_tokens: int) -> None:
        """With a fast tokenizer of transformers, and the width of the model's logits."""
        self._tokenizer = LLTokenizer(
            tokenizer.backend_tokenizer.to_str(), n_vocab=n_tokens, eos_token=list(stops)
        )
        self._family = family
        self.special = frozenset(
            marker
            for marker in family.markers
            if len(ids := tokenizer.encode(marker, add_special_tokens=False)) == 1
            and self._tokenizer.is_special_token(ids[0])
        )
        """The family's markers that no text can spell."""
        self._ready: dict[str, _Prepared] = {}

    def compiled(self, grammar: str) -> LLMatcher:
        """What `Constraint` takes a copy of, or is in an error; slow and without Python's lock."""
        return LLMatcher(self._tokenizer, grammar, log_level=0)

    def hold(self, tools: Sequence[Tool], wanted: Wanted = ANY_CALLS) -> Held:
        """A constraint to calls of these tools, so many as wanted, or to what may stand for them.

        Raises:
            UnusableSchema: nothing is left to answer, or the answer's schema cannot be held to.
        """
        key = dumps([[[tool.name, tool.parameters] for tool in tools], wanted])
        if key not in self._ready:
            # The last alone: rows with the same tools stand side by side.
            self._ready = {key: self._prepare(tools, wanted)}
        matcher, notes = self._ready[key]
        return Held(None if matcher is None else Constraint(matcher.deep_copy()), notes)

    def _prepare(self, tools: Sequence[Tool], wanted: Wanted) -> _Prepared:
        """The constraint that holds most of the tools' schemas, and all else that is wanted."""
        prepared = self._try(tools, [], wanted)
        if prepared is None:
            broken = [tool.name for tool in tools if self._try([tool], [], ANY_CALLS) is None]
            prepared = self._try(tools, broken, wanted)
        if prepared is None:
            prepared = self._try(tools, [tool.name for tool in tools], wanted)
        if prepared is None and wanted.schema is not None:
            raise UnusableSchema(
                f"No answer can be held to this JSON Schema: {dumps(wanted.schema)[:200]}; "
                "it is too large, or a pattern in it is broken: make it simpler"
            )
        return prepared or _Prepared(None, ("the form of the whole answer",))

    def _try(self, tools: Sequence[Tool], loose: Sequence[str], wanted: Wanted) -> _Prepared | None:
        """A matcher, if the grammar can be built and llguidance takes it."""
        try:
            grammar = self._family.grammar(tools, loose, self.special, wanted)
        except TooLarge:
            return None
        matcher = self.compiled(grammar.text)
        notes = (*grammar.notes, *(f"{name}: its whole schema" for name in loose))
        return None if matcher.is_error() else _Prepared(matcher, notes)


def allowed_words(asked: Sequence[tuple[LLMatcher, int]], B: int, V: int) -> NDArray[np.uint32]:
    """A bit for each token that may come next, (B, V / 32) rounded up; all for rows not asked for.

    The lowest bit of a word is the first token.
    """
    words = allocate_token_bitmask(B, V)
    fill_next_token_bitmask_par(_executor(), list(asked), words)
    return words.view(np.uint32)


@cache
def _executor() -> LLExecutor:
    return LLExecutor()

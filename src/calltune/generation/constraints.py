"""Answers held to a grammar, through llguidance: which tokens may come next, and which must."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llguidance import LLExecutor, LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask_par
from numpy.typing import NDArray

from calltune.errors import UnusableSchema
from calltune.files import dumps
from calltune.formats import Format
from calltune.formats.grammar import ANY_CALLS, OutputSpec
from calltune.schemas.lark import TooLarge
from calltune.types import Tool

MAX_SECONDS = 0.5
SECONDS_A_TOKEN = 0.002
"""Of processor time for one answer, and for each of its tokens as well: most take a tenth of a
millisecond, and while they do, all other answers wait."""
SLOW_SECONDS = 0.02
"""Where masks together took longer, each is looked at alone."""


class Constraint:
    """One answer as far as it has come, and the grammar that it keeps to."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher
        self._seconds = 0.0
        self._n_tokens = 0
        self.is_suspect = False
        """Whether its masks may be what others wait for."""

    def accept(self, token: int) -> None:
        """The answer goes on with this token."""
        self._n_tokens += 1
        with self._timed():
            self._matcher.consume_token(token)

    def forced(self) -> list[int]:
        """The tokens that must come now; often none."""
        if self.is_complete:
            return []
        with self._timed():
            return list(self._matcher.compute_ff_tokens())

    def fill(self, words: NDArray[np.int32]) -> None:
        """Write its mask, (V / 32) rounded up, and take note of what that takes."""
        before = self._seconds
        with self._timed():
            mask = np.frombuffer(self._matcher.compute_bitmask(), np.int32)
        words[:] = mask[: len(words)]
        self.is_suspect = self._seconds - before > SLOW_SECONDS / 4

    @contextmanager
    def _timed(self) -> Iterator[None]:
        # Not the clock on the wall, which counts what other programs do.
        started = time.thread_time()
        yield
        self._seconds += time.thread_time() - started

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow but the end."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def problem(self) -> str | None:
        """Why the answer cannot be held to the grammar any more."""
        most = MAX_SECONDS + SECONDS_A_TOKEN * self._n_tokens
        if self._seconds > most:
            return f"its grammar took more than {most:.1f} s"
        return self._matcher.get_error() or None

    def ask(self, index: int) -> tuple[LLMatcher, int]:
        """What llguidance asks for the row of this index."""
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

    def __init__(
        self, tokenizer: Any, prompt_format: Format, stops: Sequence[int], n_tokens: int
    ) -> None:
        """With a fast tokenizer of transformers, and the width of the model's logits."""
        self._tokenizer = LLTokenizer(
            tokenizer.backend_tokenizer.to_str(), n_vocab=n_tokens, eos_token=list(stops)
        )
        self._family = prompt_format
        self.special = frozenset(
            marker
            for marker in prompt_format.markers
            if len(ids := tokenizer.encode(marker, add_special_tokens=False)) == 1
            and self._tokenizer.is_special_token(ids[0])
        )
        """The family's markers that no text can spell."""
        self._ready: dict[str, _Prepared] = {}

    def compiled(self, grammar: str) -> LLMatcher:
        """What `Constraint` takes a copy of, or is in an error; slow and without Python's lock."""
        return LLMatcher(self._tokenizer, grammar, log_level=0)

    def hold(self, tools: Sequence[Tool], wanted: OutputSpec = ANY_CALLS) -> Held:
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

    def _prepare(self, tools: Sequence[Tool], wanted: OutputSpec) -> _Prepared:
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

    def _try(
        self, tools: Sequence[Tool], loose: Sequence[str], wanted: OutputSpec
    ) -> _Prepared | None:
        """A matcher, if the grammar can be built and llguidance takes it."""
        try:
            grammar = self._family.grammar(tools, loose, self.special, wanted)
        except TooLarge:
            return None
        matcher = self.compiled(grammar.text)
        notes = (*grammar.notes, *(f"{name}: its whole schema" for name in loose))
        return None if matcher.is_error() else _Prepared(matcher, notes)


def allowed_words(held: Sequence[tuple[Constraint, int]], B: int, V: int) -> NDArray[np.uint32]:
    """A bit for each token that may come next, (B, V / 32) rounded up; all for rows not held.

    Each constraint comes with the index of its row. The lowest bit of a word is the first token.
    """
    words = allocate_token_bitmask(B, V)
    together = [(constraint, index) for constraint, index in held if not constraint.is_suspect]
    for constraint, index in held:
        if constraint.is_suspect:
            constraint.fill(words[index])
    started = time.perf_counter()
    if asked := [constraint.ask(index) for constraint, index in together]:
        fill_next_token_bitmask_par(_executor(), asked, words)
    if time.perf_counter() - started > SLOW_SECONDS:
        for constraint, _ in together:
            constraint.is_suspect = True
    return words.view(np.uint32)


@cache
def _executor() -> LLExecutor:
    return LLExecutor()

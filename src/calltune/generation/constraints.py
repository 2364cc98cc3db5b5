"""Constrained decoding with llguidance: token masks that keep answers to a grammar.

Source: https://github.com/guidance-ai/llguidance
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llguidance import LLExecutor, LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask_par
from numpy.typing import NDArray

from calltune.files import dumps
from calltune.formats import Format
from calltune.formats.grammar import ANY_CALLS, OutputSpec, strictest
from calltune.types import Tool

MAX_SECONDS = 0.5
SECONDS_PER_TOKEN = 0.002
"""Processor time that one answer's grammar may take, and as much more for each of its tokens.
Most tokens take a tenth of a millisecond, and all other answers wait in the meantime."""
SLOW_SECONDS = 0.02
"""If the masks of a batch took longer than this, each is computed and timed alone."""


class GrammarConstraint:
    """The position of one answer in its grammar; a `Constraint` of `generation.sequence`."""

    def __init__(self, matcher: LLMatcher) -> None:
        """From a matcher of this answer alone, at the start of the grammar."""
        self._matcher = matcher
        self._seconds = 0.0
        self._n_tokens = 0
        self.is_slow = False
        """Whether its masks may be what the other answers wait for."""

    def accept(self, token: int) -> None:
        """Advance by one token of the answer."""
        self._n_tokens += 1
        with self._timed():
            self._matcher.consume_token(token)

    def forced_tokens(self) -> list[int]:
        """The tokens that must come next; often none."""
        if self.is_complete:
            return []
        with self._timed():
            return list(self._matcher.compute_ff_tokens())

    def fill_mask(self, words: NDArray[np.int32]) -> None:
        """Write the token mask into `words`, (ceil(V / 32),), and measure how long that takes."""
        before = self._seconds
        with self._timed():
            mask = np.frombuffer(self._matcher.compute_bitmask(), np.int32)
        words[:] = mask[: len(words)]
        self.is_slow = self._seconds - before > SLOW_SECONDS / 4

    def mask_request(self, index: int) -> tuple[LLMatcher, int]:
        """A request to llguidance for the token mask of the batch's row `index`."""
        return self._matcher, index

    @property
    def is_complete(self) -> bool:
        """Whether nothing but a stop token may follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def problem(self) -> str | None:
        """Why the answer can no longer be constrained; None while it can."""
        limit = MAX_SECONDS + SECONDS_PER_TOKEN * self._n_tokens
        if self._seconds > limit:
            return f"its grammar took more than {limit:.1f} s"
        return self._matcher.get_error() or None

    @contextmanager
    def _timed(self) -> Iterator[None]:
        # Processor time: wall-clock time would also count what other programs do.
        started = time.thread_time()
        yield
        self._seconds += time.thread_time() - started


class Constrained(NamedTuple):
    """The constraint for one answer, and the parts of the schemas that it does not enforce."""

    constraint: GrammarConstraint | None
    """None if the answer cannot be constrained at all."""
    unenforced_keywords: tuple[str, ...]
    """Each as "tool: keyword"."""


class _Compiled(NamedTuple):
    """The grammar of a set of tools, compiled once."""

    matcher: LLMatcher | None
    unenforced_keywords: tuple[str, ...]


class Constrainer:
    """Makes the constraints for the answers of one model in one prompt format."""

    def __init__(
        self, tokenizer: Any, prompt_format: Format, stop_tokens: Sequence[int], vocab_size: int
    ) -> None:
        """`tokenizer` is a fast tokenizer of transformers, `vocab_size` the width of the logits."""
        self._tokenizer = LLTokenizer(
            tokenizer.backend_tokenizer.to_str(), n_vocab=vocab_size, eos_token=list(stop_tokens)
        )
        self._format = prompt_format
        self.special_markers = frozenset(
            marker
            for marker in prompt_format.markers
            if len(ids := tokenizer.encode(marker, add_special_tokens=False)) == 1
            and self._tokenizer.is_special_token(ids[0])
        )
        """The format's markers that are special tokens, which no ordinary text encodes to."""
        self._compiled: dict[str, _Compiled] = {}

    def compile(self, grammar: str) -> LLMatcher:
        """A matcher at the start of a grammar in llguidance's Lark dialect; copy it to use it.

        It may be in an error state (`is_error`). Slow, but without Python's global lock.
        """
        return LLMatcher(self._tokenizer, grammar, log_level=0)

    def constrain(self, tools: Sequence[Tool], wanted: OutputSpec = ANY_CALLS) -> Constrained:
        """A constraint for an answer: calls of these tools, or what `wanted` allows in their place.

        Parts of a schema that cannot be enforced are left out and named.

        Raises:
            UnusableSchema: no answer is possible.
        """
        key = dumps([[[tool.name, tool.parameters] for tool in tools], wanted])
        if key not in self._compiled:
            # Only the last is kept: prompts with the same tools are neighbours.
            self._compiled = {key: self._compile_tools(tools, wanted)}
        matcher, unenforced = self._compiled[key]
        return Constrained(
            None if matcher is None else GrammarConstraint(matcher.deep_copy()), unenforced
        )

    def _compile_tools(self, tools: Sequence[Tool], wanted: OutputSpec) -> _Compiled:
        """The strictest grammar that compiles."""
        found = strictest(self._format.grammar, tools, self.special_markers, wanted, self._matcher)
        if found is None:
            return _Compiled(None, ("the form of the whole answer",))
        return _Compiled(found.matcher, found.grammar.notes)

    def _matcher(self, grammar: str) -> LLMatcher | None:
        matcher = self.compile(grammar)
        return None if matcher.is_error() else matcher


def token_bitmasks(
    constraints: Sequence[tuple[GrammarConstraint, int]], B: int, V: int
) -> NDArray[np.uint32]:
    """One bit per allowed token, (B, ceil(V / 32)); all bits are set for unconstrained rows.

    Each constraint comes with the index of its row. The lowest bit of a word is the first token.
    """
    words = allocate_token_bitmask(B, V)
    together = [(constraint, index) for constraint, index in constraints if not constraint.is_slow]
    for constraint, index in constraints:
        if constraint.is_slow:
            constraint.fill_mask(words[index])
    started = time.perf_counter()
    if requests := [constraint.mask_request(index) for constraint, index in together]:
        fill_next_token_bitmask_par(_executor(), requests, words)
    if time.perf_counter() - started > SLOW_SECONDS:
        for constraint, _ in together:
            constraint.is_slow = True
    return words.view(np.uint32)


@cache
def _executor() -> LLExecutor:
    return LLExecutor()

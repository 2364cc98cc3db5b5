"""A prompt and the sequence generated for it, with its sampling settings and its constraint."""

import time
from bisect import bisect_left
from collections import abc
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

FinishReason = Literal["stop", "length"]
MIN_SHARED = 64
"""Prompts reuse each other's keys and values from this many equal leading tokens on."""


class Constraint(Protocol):
    """What restricts the tokens of one answer; it follows the answer token by token."""

    def accept(self, token: int) -> None:
        """Advance by one token of the answer."""

    def forced_tokens(self) -> list[int]:
        """The tokens that must come next because nothing else may; often none."""

    def mask_request(self, index: int) -> Any:
        """A request to llguidance for the token mask of the batch's row `index`."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing but a stop token may follow."""

    @property
    def problem(self) -> str | None:
        """Why the answer can no longer be constrained; None while it can."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are sampled. Equal seeds give equal tokens, whatever else is in the batch."""

    temperature: float
    top_p: float = 1.0
    """Sample from the smallest set of most likely tokens with at least this probability."""
    seed: int = 0


class Prompt(NamedTuple):
    """A prompt to complete: an id and its tokens, and how its answer is generated."""

    id: str
    tokens: list[int]
    constraint: Constraint | None = None
    sampling: Sampling | None = None
    """None is greedy decoding."""
    max_tokens: int | None = None
    """Limit for this answer, in tokens, in place of the limit for all."""
    adapter: int = 0
    """Number of the model's adapter that answers, if it has several; 0 is the base model."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model generated for one prompt."""

    id: str
    prompt_length: int
    """In tokens."""
    tokens: list[int]
    """Without the stop token."""
    finish_reason: FinishReason
    seconds: float
    """From the start of prefill to the last token; other sequences run in the same time."""


@dataclass(slots=True)
class Sequence:
    """The state of a prompt that is being answered."""

    prompt: Prompt
    started: float = 0.0
    """When its prefill began, by `time.perf_counter`."""
    pending: list[int] = field(default_factory=list)
    """Known tokens that the model has not been fed yet: of the prompt, or forced."""
    generated: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    was_sampled: bool = False
    """Whether the token fed last was sampled and has not been read back yet."""
    is_chunked: bool = False
    """Whether its prompt is too long for one prefill."""

    @property
    def needs_sampling(self) -> bool:
        """Whether its next token is for the model to choose."""
        return self.finish_reason is None and not self.pending

    @property
    def constraint(self) -> Constraint | None:
        """The constraint on its next token, if that is to be sampled under one that works."""
        constraint = self.prompt.constraint if self.needs_sampling else None
        return None if constraint is None or constraint.problem else constraint

    @property
    def n_prefillable(self) -> int:
        """How many tokens can be fed before the one whose logits are needed."""
        return max(0, len(self.pending) - 1)

    def start(self, n_cached: int) -> None:
        """Begin, with the first `n_cached` tokens of the prompt already in the cache."""
        self.started = time.perf_counter()
        self.pending = self.prompt.tokens[n_cached:]

    def take_pending(self, max_tokens: int) -> list[int]:
        """Remove and return up to `max_tokens` pending tokens, never the last one."""
        count = min(max_tokens, self.n_prefillable)
        taken, self.pending = self.pending[:count], self.pending[count:]
        return taken

    def append(self, token: int, stop_tokens: frozenset[int], max_tokens: int) -> None:
        """Add a sampled or forced token to the answer; this may finish it."""
        if token in stop_tokens:
            self.finish_reason = "stop"
            return
        self.generated.append(token)
        constraint = self.prompt.constraint
        if constraint is not None and not constraint.problem:
            constraint.accept(token)
        if constraint is not None and constraint.is_complete:
            self.finish_reason = "stop"
        elif len(self.generated) >= (self.prompt.max_tokens or max_tokens):
            self.finish_reason = "length"

    def append_forced(self, stop_tokens: frozenset[int], max_tokens: int) -> None:
        """Add the tokens that the constraint forces, and leave them pending."""
        constraint = self.constraint
        for token in constraint.forced_tokens() if constraint else ():
            self.append(token, stop_tokens, max_tokens)
            if self.finish_reason is not None:
                return
            self.pending.append(token)

    def completion(self) -> Completion:
        """The completion of a finished sequence."""
        assert self.finish_reason is not None, self.prompt.id
        seconds = time.perf_counter() - self.started
        length = len(self.prompt.tokens)
        return Completion(self.prompt.id, length, self.generated, self.finish_reason, seconds)


def shared_length(tokens: list[int], others: list[int]) -> int:
    """The number of equal tokens that two lists begin with."""
    shorter = min(len(tokens), len(others))
    return bisect_left(range(shorter), True, key=lambda i: tokens[: i + 1] != others[: i + 1])


def sort_by_shared_prefix(prompts: abc.Sequence[Prompt]) -> list[Prompt]:
    """Prompts with a common prefix (the same tools) side by side, from short groups to long ones.

    The common prefix of neighbours is prefilled once, and neighbours of similar length need
    little padding.
    """
    groups: list[list[Prompt]] = []
    for prompt in sorted(prompts, key=lambda prompt: prompt.tokens):
        if groups and _are_alike(groups[-1][0].tokens, prompt.tokens):
            groups[-1].append(prompt)
        else:
            groups.append([prompt])
    groups.sort(key=lambda group: max(len(prompt.tokens) for prompt in group))
    return [p for group in groups for p in sorted(group, key=lambda p: len(p.tokens))]


def _are_alike(tokens: list[int], others: list[int]) -> bool:
    """Whether the common prefix is long enough to reuse, and at least half of each."""
    shared = shared_length(tokens, others)
    return shared >= MIN_SHARED and 2 * shared >= max(len(tokens), len(others))

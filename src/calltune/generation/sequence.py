"""One row on its way: its prompt, what it has written, and what is known to come next."""

import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

Finish = Literal["stop", "length"]
MIN_SHARED = 64
"""Prompts that begin with as many equal tokens share what was computed for them."""


class Constraint(Protocol):
    """What an answer is held to, one token after the other."""

    def accept(self, token: int) -> None:
        """The answer goes on with this token."""

    def forced(self) -> list[int]:
        """The tokens that must come now, where nothing else may; often none."""

    def ask(self, index: int) -> Any:
        """What says which tokens may come now, for the row of this index."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow but the end."""

    @property
    def problem(self) -> str | None:
        """Why the answer cannot be held to anything any more."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. Equal seeds draw equal tokens, whatever else is decoded beside."""

    temperature: float
    top_p: float = 1.0
    """Draw among the most likely tokens that together have this probability."""
    seed: int = 0


class Prompt(NamedTuple):
    """What to answer: a name for it, and its tokens."""

    id: str
    tokens: list[int]
    constraint: Constraint | None = None
    sampling: Sampling | None = None
    """None takes the most likely token each time."""
    max_tokens: int | None = None
    """Of this answer, in place of the limit for all."""
    adapter: int = 0
    """Which of the model's adapters answers, where it has several; 0 is none of them."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote to one prompt."""

    id: str
    prompt_length: int
    """In tokens."""
    tokens: list[int]
    """Without the stop token."""
    finish: Finish
    seconds: float
    """From when the prompt was taken up to its last token; others run beside it."""


@dataclass(slots=True)
class Row:
    """A prompt being answered."""

    prompt: Prompt
    started: float = 0.0
    """When it was taken up, by `time.perf_counter`."""
    known: list[int] = field(default_factory=list)
    """Tokens that are to be fed and need not be chosen: of the prompt, or forced."""
    written: list[int] = field(default_factory=list)
    finish: Finish | None = None
    was_chosen: bool = False
    """The token fed last was chosen by the model, and has not been looked at."""
    is_fed_in_parts: bool = False
    """Its prompt is too long for one pass."""

    @property
    def asks(self) -> bool:
        """Whether its next token is the model's to choose."""
        return self.finish is None and not self.known

    @property
    def held_by(self) -> Constraint | None:
        """What its next token is to be chosen by, where it asks for one."""
        constraint = self.prompt.constraint if self.asks else None
        return None if constraint is None or constraint.problem else constraint

    @property
    def n_behind(self) -> int:
        """How many tokens can be fed before the one whose logits are wanted."""
        return max(0, len(self.known) - 1)

    def take_up(self, n_fed: int) -> None:
        """Begin, with so many tokens of the prompt fed already."""
        self.started = time.perf_counter()
        self.known = self.prompt.tokens[n_fed:]

    def take_known(self, most: int) -> list[int]:
        """Known tokens to be fed, all but the last and at most so many."""
        count = min(most, self.n_behind)
        taken, self.known = self.known[:count], self.known[count:]
        return taken

    def write(self, token: int, stops: frozenset[int], limit: int) -> None:
        """Take a token that was chosen or forced."""
        if token in stops:
            self.finish = "stop"
            return
        self.written.append(token)
        constraint = self.prompt.constraint
        if constraint is not None and not constraint.problem:
            constraint.accept(token)
        if constraint is not None and constraint.is_complete:
            self.finish = "stop"
        elif len(self.written) >= (self.prompt.max_tokens or limit):
            self.finish = "length"

    def write_forced(self, stops: frozenset[int], limit: int) -> None:
        """Write what can be nothing else, and leave it to be fed."""
        constraint = self.held_by
        for token in constraint.forced() if constraint else ():
            self.write(token, stops, limit)
            if self.finish is not None:
                return
            self.known.append(token)

    def completion(self) -> Completion:
        """The finished row."""
        assert self.finish is not None, self.prompt.id
        seconds = time.perf_counter() - self.started
        length = len(self.prompt.tokens)
        return Completion(self.prompt.id, length, self.written, self.finish, seconds)


def shared_length(tokens: list[int], others: list[int]) -> int:
    """With how many equal tokens two lists begin."""
    least = min(len(tokens), len(others))
    return bisect_left(range(least), True, key=lambda i: tokens[: i + 1] != others[: i + 1])


def in_quick_order(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts that begin alike (the same tools) side by side, and these groups by their length.

    What neighbours share is computed once, and neighbours of like length leave little padding.
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
    """Whether the two share something, and half of what they are."""
    shared = shared_length(tokens, others)
    return shared >= MIN_SHARED and 2 * shared >= max(len(tokens), len(others))

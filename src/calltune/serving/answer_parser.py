"""One answer as its tokens come: words and calls, each as soon as it is certain.

A stream sends these events on, and an answer given at once gathers them, so both hold the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from calltune.formats import Format
from calltune.formats.parser import StreamingParser
from calltune.types import ToolCall

FinishReason = Literal["stop", "length", "tool_calls"]


class Words(NamedTuple):
    """The next part of what the answer says."""

    text: str


class Called(NamedTuple):
    """A call that is complete."""

    call: ToolCall


class Ended(NamedTuple):
    """The answer is over."""

    reason: FinishReason


Event = Words | Called | Ended


@dataclass(slots=True)
class Detokenizer:
    """Tokens -> text, a part at a time; the parts together are the text of all tokens."""

    tokenizer: Any
    _tokens: list[int] = field(default_factory=list)
    _said: int = 0
    """So many tokens have been said for good."""
    _read: int = 0
    """So many more are context: a token's text may depend on the one before it."""

    def feed(self, tokens: Sequence[int]) -> str:
        """What can be said now; a letter whose bytes have not all come waits."""
        self._tokens.extend(tokens)
        known = self._text(self._said, self._read)
        text = self._text(self._said, len(self._tokens))
        if text.endswith("\ufffd"):
            return ""
        return self._say(known, text)

    def finish(self) -> str:
        """What is left, be it half a letter."""
        return self._say(
            self._text(self._said, self._read), self._text(self._said, len(self._tokens))
        )

    def _say(self, known: str, text: str) -> str:
        self._said, self._read = self._read, len(self._tokens)
        return text[len(known) :]

    def _text(self, start: int, end: int) -> str:
        return str(self.tokenizer.decode(self._tokens[start:end]))


class Turn:
    """Reads one answer; `feed` and `finish` give what has become certain."""

    def __init__(
        self,
        tokenizer: Any,
        prompt_format: Format,
        can_call: bool,
        stops: Sequence[str] = (),
        original: Callable[[ToolCall], ToolCall] = lambda call: call,
    ) -> None:
        """`stops` end words, not calls; `original` gives a call its tool's name in the request."""
        self.n_tokens = 0
        """How many tokens have been read."""
        self.is_cut = False
        """Whether a stop string ended it: what else comes is not read."""
        self.calls: list[ToolCall] = []
        self._detokenizer = Detokenizer(tokenizer)
        self._opening = prompt_format.call_prefix if can_call else ""
        self._reader: StreamingParser | None = None
        self._family = prompt_format
        self._stops = stops
        self._original = original
        self._kept = ""
        """Text that may yet turn out to be an opening or a stop string; all of it, of calls."""

    @property
    def wrote_calls(self) -> bool:
        """Whether calls were written, be it that none is due."""
        return self._reader is not None

    def feed(self, tokens: Sequence[int]) -> Iterator[Event]:
        """What these tokens make certain."""
        self.n_tokens += len(tokens)
        if not self.is_cut:
            yield from self._take(self._detokenizer.feed(tokens))

    def finish(self, is_complete: bool) -> Iterator[Event]:
        """The rest; `is_complete` is whether the model ended it, and not a limit.

        Calls that a limit cut short are given as words, with what was complete before them.
        """
        if not self.is_cut:
            yield from self._take(self._detokenizer.finish())
        if self._reader is None:
            if self._kept and not self.is_cut:
                yield Words(self._kept)
        elif not is_complete or self._reader.finish().problem is not None:
            rest = self._kept[self._reader.end_of_calls :]
            if rest.strip():
                yield Words(rest)
        if self.is_cut or (is_complete and not self.calls):
            yield Ended("stop")
        else:
            yield Ended("tool_calls" if is_complete else "length")

    def _take(self, text: str) -> Iterator[Event]:
        self._kept += text
        if self._reader is not None:
            yield from self._read(text)
        elif self._opening and self._kept.startswith(self._opening):
            self._reader = self._family.parser()
            yield from self._read(self._kept)
        elif not (self._opening and self._opening.startswith(self._kept)):
            self._opening = ""
            yield from self._say()

    def _read(self, text: str) -> Iterator[Event]:
        assert self._reader is not None
        for call in self._reader.feed(text):
            self.calls.append(self._original(call))
            yield Called(self.calls[-1])

    def _say(self) -> Iterator[Event]:
        found = [at for stop in self._stops if (at := self._kept.find(stop)) >= 0]
        if found:
            said, self._kept, self.is_cut = self._kept[: min(found)], "", True
        else:
            held = max((_overlap(self._kept, stop) for stop in self._stops), default=0)
            end = len(self._kept) - held
            said, self._kept = self._kept[:end], self._kept[end:]
        if said:
            yield Words(said)


def _overlap(text: str, stop: str) -> int:
    """How much of the beginning of `stop` stands at the end of `text`."""
    most = min(len(text), len(stop) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)

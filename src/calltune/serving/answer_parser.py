"""Incremental parsing of one answer: tokens to text and calls, each as soon as it is certain.

A stream sends these events on, and a whole response collects them, so both have the same content.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from calltune.formats import Format
from calltune.formats.parser import StreamingParser
from calltune.types import ToolCall

FinishReason = Literal["stop", "length", "tool_calls"]


class TextDelta(NamedTuple):
    """The next part of the answer's text."""

    text: str


class CompletedCall(NamedTuple):
    """A call that is complete."""

    call: ToolCall


class SchemaNote(NamedTuple):
    """Why a call or an answer is returned as text: it does not satisfy its schema."""

    type: Literal["call_off_schema", "answer_off_schema"]
    message: str


class Finished(NamedTuple):
    """The end of the answer."""

    reason: FinishReason
    note: SchemaNote | None = None


Event = TextDelta | CompletedCall | Finished


@dataclass(slots=True)
class Detokenizer:
    """Decodes tokens incrementally; the parts together are the text of all tokens.

    Unlike `tokenizers.DecodeStream` it decodes through the model's own `decode`, and `finish`
    returns a character that the last token left incomplete.
    """

    tokenizer: Any
    _tokens: list[int] = field(default_factory=list)
    _context_start: int = 0
    """Tokens from here on are decoded again, as a token's text may depend on the one before it."""
    _context_end: int = 0
    """The text of the tokens before this one has been returned."""

    def feed(self, tokens: Sequence[int]) -> str:
        """The text that is certain now; a character waits until all of its bytes are there."""
        self._tokens.extend(tokens)
        context = self._decode(self._context_start, self._context_end)
        text = self._decode(self._context_start, len(self._tokens))
        if text.endswith("\ufffd"):
            return ""
        return self._advance(context, text)

    def finish(self) -> str:
        """The rest of the text, with an incomplete character as U+FFFD."""
        return self._advance(
            self._decode(self._context_start, self._context_end),
            self._decode(self._context_start, len(self._tokens)),
        )

    def _advance(self, context: str, text: str) -> str:
        self._context_start, self._context_end = self._context_end, len(self._tokens)
        return text[len(context) :]

    def _decode(self, start: int, end: int) -> str:
        return str(self.tokenizer.decode(self._tokens[start:end]))


class AnswerParser:
    """Parses one answer; `feed` and `finish` yield the events that have become certain."""

    def __init__(
        self,
        tokenizer: Any,
        prompt_format: Format,
        can_call: bool,
        stop_strings: Sequence[str] = (),
        original_call: Callable[[ToolCall], ToolCall] = lambda call: call,
    ) -> None:
        """`stop_strings` end text, not calls.

        `original_call` gives a call the name that its tool has in the request.
        """
        self.n_tokens = 0
        """How many tokens have been read."""
        self.was_stopped = False
        """Whether a stop string ended the answer; tokens after it are ignored."""
        self.calls: list[ToolCall] = []
        self._detokenizer = Detokenizer(tokenizer)
        self._call_prefix = prompt_format.call_prefix if can_call else ""
        self._call_parser: StreamingParser | None = None
        self._format = prompt_format
        self._stop_strings = stop_strings
        self._original_call = original_call
        self._buffer = ""
        """Text that may turn out to be the call prefix or a stop string; of calls all text."""

    @property
    def wrote_calls(self) -> bool:
        """Whether the answer is in the syntax of calls, even if it says that no call is needed."""
        return self._call_parser is not None

    def feed(self, tokens: Sequence[int]) -> Iterator[Event]:
        """The events that these tokens make certain."""
        self.n_tokens += len(tokens)
        if not self.was_stopped:
            yield from self._feed_text(self._detokenizer.feed(tokens))

    def finish(self, is_complete: bool) -> Iterator[Event]:
        """The last events; `is_complete` is False if a limit ended the answer.

        Calls that a limit cut off are returned as text, after the calls that were complete.
        """
        if not self.was_stopped:
            yield from self._feed_text(self._detokenizer.finish())
        if self._call_parser is None:
            if self._buffer and not self.was_stopped:
                yield TextDelta(self._buffer)
        elif not is_complete or self._call_parser.finish().problem is not None:
            rest = self._buffer[self._call_parser.end_of_calls :]
            if rest.strip():
                yield TextDelta(rest)
        if self.was_stopped or (is_complete and not self.calls):
            yield Finished("stop")
        else:
            yield Finished("tool_calls" if is_complete else "length")

    def _feed_text(self, text: str) -> Iterator[Event]:
        self._buffer += text
        if self._call_parser is not None:
            yield from self._parse_calls(text)
        elif self._call_prefix and self._buffer.startswith(self._call_prefix):
            self._call_parser = self._format.parser()
            yield from self._parse_calls(self._buffer)
        elif not (self._call_prefix and self._call_prefix.startswith(self._buffer)):
            self._call_prefix = ""
            yield from self._release_text()

    def _parse_calls(self, text: str) -> Iterator[Event]:
        assert self._call_parser is not None
        for call in self._call_parser.feed(text):
            self.calls.append(self._original_call(call))
            yield CompletedCall(self.calls[-1])

    def _release_text(self) -> Iterator[Event]:
        """The buffered text up to a stop string, or to what may become one."""
        found = [at for stop in self._stop_strings if (at := self._buffer.find(stop)) >= 0]
        if found:
            text, self._buffer, self.was_stopped = self._buffer[: min(found)], "", True
        else:
            held_back = max(
                (_overlap(self._buffer, stop) for stop in self._stop_strings), default=0
            )
            end = len(self._buffer) - held_back
            text, self._buffer = self._buffer[:end], self._buffer[end:]
        if text:
            yield TextDelta(text)


def _overlap(text: str, stop: str) -> int:
    """The length of the longest proper prefix of `stop` that `text` ends with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)

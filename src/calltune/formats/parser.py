"""Streaming parser of a model's answer: calls come out as soon as they are complete.

A prompt format's grammar is a generator that walks over a `TextStream` from the first character to
the last, once. It yields each call that it has parsed, and None where it needs the next chunk; so
where the text was cut makes no difference to it, and it never looks at a character twice.

Calls are strict JSON (RFC 8259), as `{"name", "arguments"}` or as OpenAI's API wraps them; anything
else is refused with a reason.
"""

import json
import re
from collections.abc import Callable, Generator
from math import isfinite
from typing import NoReturn, TypeVar

from calltune.types import MAX_DEPTH, Json, ParsedOutput, ToolCall

T = TypeVar("T")
ParseSteps = Generator[ToolCall | None, None, T]
"""A part of a parser: yields calls, and None to ask for more text; returns what it found."""

JSON_SPACE = " \t\n\r"
_PLAIN = re.compile(r'[^][{}"]*+')
_IN_STRING = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


class ParseError(Exception):
    """A text holds no calls that can be parsed; the message becomes `ParsedOutput.problem`."""


class TextStream:
    """A text that comes in chunks, and the position up to which it has been parsed."""

    def __init__(self) -> None:
        self._chunk = ""
        self._at = 0
        self._n_before = 0
        self._is_over = False

    @property
    def position(self) -> int:
        """How many characters of the whole text have been parsed."""
        return self._n_before + self._at

    def feed(self, chunk: str) -> None:
        """Give the next chunk, once the one before has been parsed."""
        assert not self._is_over, "a chunk after the end"
        self._n_before += len(self._chunk)
        self._chunk, self._at = chunk, 0

    def close(self) -> None:
        """Say that no chunk will follow."""
        self._is_over = True

    def peek(self) -> ParseSteps[str]:
        """The next character, without consuming it; "" at the end of the text."""
        while self._at == len(self._chunk) and not self._is_over:
            yield None
        return self._chunk[self._at : self._at + 1]

    def advance(self) -> None:
        """Consume the character that `peek` gave."""
        self._at += 1

    def skip_space(self, space: str | None = None) -> ParseSteps[str]:
        """Consume white space, or what is in `space`; the next character, "" at the end."""
        while character := (yield from self.peek()):
            if not (character.isspace() if space is None else character in space):
                break
            self.advance()
        return character

    def skip_past(self, mark: str) -> ParseSteps[bool]:
        """Consume the text through the first `mark`; False, and all of it, where there is none."""
        kept = ""
        while True:
            text = kept + self._chunk[self._at :]
            found = text.find(mark)
            if found >= 0:
                self._at += found + len(mark) - len(kept)
                return True
            # A mark may begin in one chunk and end in the next.
            kept = text[-(len(mark) - 1) :]
            self._at = len(self._chunk)
            if not (yield from self.peek()):
                return False

    def accept(self, mark: str) -> ParseSteps[bool]:
        """Whether `mark` comes next; it is consumed as far as it matches."""
        for character in mark:
            if (yield from self.peek()) != character:
                return False
            self.advance()
        return True

    def read_json_text(self) -> ParseSteps[str]:
        """Consume from the bracket that comes next to the one that closes it, or to the text's end.

        Raises:
            ParseError: nested more than `MAX_DEPTH` deep.
        """
        brackets, parts = BracketMatcher(), []
        while True:
            end = brackets.find_close(self._chunk, self._at)
            parts.append(self._chunk[self._at : end])
            self._at = len(self._chunk) if end is None else end
            if end is not None or not (yield from self.peek()):
                return "".join(parts)


class BracketMatcher:
    """Finds the end of a JSON text by its brackets; their kinds are left to the JSON decoder."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False

    def find_close(self, text: str, at: int) -> int | None:
        """Scan `text` from `at`; the index after the outermost closing bracket, or None.

        Raises:
            ParseError: nested more than `MAX_DEPTH` deep.
        """
        while at < len(text):
            at = self._string(text, at) if self._is_in_string else self._plain(text, at)
            if self._depth == 0 and not self._is_in_string:
                return at
        return None

    def _plain(self, text: str, at: int) -> int:
        """The index after the next bracket or quote."""
        at = _end(_PLAIN, text, at)
        match text[at : at + 1]:
            case '"':
                self._is_in_string = True
            case "[" | "{":
                self._depth += 1
                if self._depth > MAX_DEPTH:
                    raise ParseError("JSON nested too deep")
            case "]" | "}":
                self._depth -= 1
        return at + 1

    def _string(self, text: str, at: int) -> int:
        """The index after the quote that ends the string, or after the text."""
        at = _end(_IN_STRING, text, at + self._is_escaped)
        # The match ends at the quote, or at a backslash whose character has not come yet.
        self._is_escaped = text[at : at + 1] == "\\"
        self._is_in_string = text[at : at + 1] != '"'
        return at + 1


class StreamingParser:
    """Parses one answer, fed whole or in chunks of any size."""

    def __init__(self, steps: Callable[[TextStream], ParseSteps[None]]) -> None:
        self._text = TextStream()
        self._steps = steps(self._text)
        self._calls: list[ToolCall] = []
        self._problem: str | None = None
        self.end_of_calls = 0
        """The index in the text after the last call that was parsed."""

    @property
    def is_broken(self) -> bool:
        """Whether no text could go on from here; an answer that was cut is not broken."""
        return self._problem is not None

    def feed(self, chunk: str) -> tuple[ToolCall, ...]:
        """The calls that became complete with this chunk.

        They are provisional: where the text turns out to be broken later, `finish` returns none.
        """
        self._text.feed(chunk)
        return self._advance()

    def finish(self) -> ParsedOutput:
        """The result for the whole text: all calls that `feed` gave, or none and a problem."""
        self._text.close()
        self._advance()
        return (
            ParsedOutput(tuple(self._calls))
            if self._problem is None
            else ParsedOutput((), self._problem)
        )

    def _advance(self) -> tuple[ToolCall, ...]:
        n_known = len(self._calls)
        try:
            while (call := next(self._steps, None)) is not None:
                self._calls.append(call)
                self.end_of_calls = self._text.position
        except ParseError as problem:
            self._problem = str(problem)
        return tuple(self._calls[n_known:])


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Where the match of a pattern that matches everywhere ends."""
    found = pattern.match(text, at)
    assert found is not None, pattern
    return found.end()


def parse_call(text: TextStream) -> ParseSteps[ToolCall]:
    """Consume the call whose JSON object begins here.

    Raises:
        ParseError: none begins here, or it is not a call.
    """
    if (yield from text.peek()) != "{":
        raise ParseError(f"no JSON object at {text.position}")
    return call_from_json((yield from parse_value(text)))


def parse_value(text: TextStream) -> ParseSteps[Json]:
    """Consume the JSON list or object that begins here.

    Raises:
        ParseError: as `decode_strict`, or it is nested too deep.
    """
    start = text.position
    return decode_strict((yield from text.read_json_text()), start)


def decode_strict(text: str, start: int = 0) -> Json:
    """The JSON value of `text`; `start` is its index in the whole text, for messages.

    Raises:
        ParseError: not JSON, a key twice in one object, NaN, Infinity or a number too large.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ParseError(f"not JSON at {start + error.pos}: {error.msg}") from None
    except ValueError:
        # Python gives up on a whole number of more than 4,300 digits.
        raise ParseError("a number too large") from None


def call_from_json(data: Json) -> ToolCall:
    """The call in `{"name", "arguments"}` or in `{"type": "function", "function": {…}}`.

    Arguments may be an object or an object written as a string, as in OpenAI's API.

    Raises:
        ParseError: no name, or arguments that are not an object.
    """
    if isinstance(data, dict) and isinstance(data.get("function"), dict):
        data = data["function"]
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise ParseError("a call without a name")
    arguments = data.get("arguments")
    if isinstance(arguments, str) and arguments.lstrip().startswith("{"):
        arguments = _object_in(arguments.strip())
    if not isinstance(arguments, dict):
        raise ParseError(f"arguments of {data['name']} are not an object")
    return ToolCall(data["name"], arguments)


def call_key(call: ToolCall) -> str:
    """A text that is equal for calls that are equal as JSON, whatever the order of their keys."""
    return json.dumps([call.name, call.arguments], sort_keys=True)


def _object_in(text: str) -> Json:
    end = BracketMatcher().find_close(text, 0)
    decoded = decode_strict(text[:end])
    if text[end:].strip():
        raise ParseError("text after the arguments")
    return decoded


def _object_without_duplicate_keys(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        raise ParseError("a key twice in one object")
    return keys


def _refuse_constant(name: str) -> NoReturn:
    raise ParseError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ParseError("a number too large")
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_without_duplicate_keys,
    parse_constant=_refuse_constant,
    parse_float=_finite,
)

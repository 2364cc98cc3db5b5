"""Reading a model's text as its pieces come: calls are given as soon as they are complete.

A family's way of reading is a generator that walks over `Pieces` from the first letter to the last,
once. It yields each call that it has read, and None where it needs the next piece; so where the
text was cut makes no difference to it, and it never looks at a letter twice.

Calls as JSON, as several families write them: parsed strictly, refused with a reason.
"""

import json
import re
from collections.abc import Callable, Generator
from math import isfinite
from typing import NoReturn, TypeVar

from calltune.types import MAX_DEPTH, Json, ParsedOutput, ToolCall

T = TypeVar("T")
Steps = Generator[ToolCall | None, None, T]
"""A part of the reading: yields calls, and None for more text; returns what it found."""

JSON_SPACE = " \t\n\r"
_PLAIN = re.compile(r'[^][{}"]*+')
_IN_STRING = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


class ParseError(Exception):
    """A text holds no calls that can be read; the message is the reading's problem."""


class Pieces:
    """A text that comes in pieces, and the place in it up to which it has been read."""

    def __init__(self) -> None:
        self._piece = ""
        self._at = 0
        self._before = 0
        self._is_over = False

    @property
    def position(self) -> int:
        """How many letters of the whole text have been read."""
        return self._before + self._at

    def add(self, piece: str) -> None:
        """The next piece, once the one before has been read."""
        assert not self._is_over, "a piece after the end"
        self._before += len(self._piece)
        self._piece, self._at = piece, 0

    def end(self) -> None:
        """No piece will follow."""
        self._is_over = True

    def letter(self) -> Steps[str]:
        """The next letter, which stays unread; "" at the end of the text."""
        while self._at == len(self._piece) and not self._is_over:
            yield None
        return self._piece[self._at : self._at + 1]

    def skip(self) -> None:
        """Read the letter that `letter` gave."""
        self._at += 1

    def past_space(self, space: str | None = None) -> Steps[str]:
        """The next letter that is not of `space`, by default any white space; "" at the end."""
        while letter := (yield from self.letter()):
            if not (letter.isspace() if space is None else letter in space):
                break
            self.skip()
        return letter

    def past(self, mark: str) -> Steps[bool]:
        """Read up to the end of the first `mark`; False, and all is read, where there is none."""
        kept = ""
        while True:
            text = kept + self._piece[self._at :]
            found = text.find(mark)
            if found >= 0:
                self._at += found + len(mark) - len(kept)
                return True
            # A mark may begin in one piece and end in another.
            kept = text[-(len(mark) - 1) :]
            self._at = len(self._piece)
            if not (yield from self.letter()):
                return False

    def takes(self, mark: str) -> Steps[bool]:
        """Whether `mark` comes next; it is read as far as it does."""
        for letter in mark:
            if (yield from self.letter()) != letter:
                return False
            self.skip()
        return True

    def json_text(self) -> Steps[str]:
        """From the bracket that comes next to the one that closes it, or to the end of the text.

        Raises:
            ParseError: nested more than `DEEPEST` deep.
        """
        brackets, parts = Brackets(), []
        while True:
            end = brackets.closed_at(self._piece, self._at)
            parts.append(self._piece[self._at : end])
            self._at = len(self._piece) if end is None else end
            if end is not None or not (yield from self.letter()):
                return "".join(parts)


class Brackets:
    """Which brackets of a JSON text are open; their kinds are left to the JSON decoder."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False

    def closed_at(self, text: str, at: int) -> int | None:
        """Read on in `text` from `at`; the place after the last open bracket closes, if it does.

        Raises:
            ParseError: nested more than `DEEPEST` deep.
        """
        while at < len(text):
            at = self._string(text, at) if self._is_in_string else self._plain(text, at)
            if self._depth == 0 and not self._is_in_string:
                return at
        return None

    def _plain(self, text: str, at: int) -> int:
        """The place after the next bracket or quote."""
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
        """The place after the quote that ends the string, or after the text."""
        at = _end(_IN_STRING, text, at + self._is_escaped)
        # What stops there is the quote, or a backslash whose letter has not come yet.
        self._is_escaped = text[at : at + 1] == "\\"
        self._is_in_string = text[at : at + 1] != '"'
        return at + 1


class StreamingParser:
    """Reads one text, whole or in pieces of any size."""

    def __init__(self, steps: Callable[[Pieces], Steps[None]]) -> None:
        self._text = Pieces()
        self._steps = steps(self._text)
        self._calls: list[ToolCall] = []
        self._problem: str | None = None
        self.end_of_calls = 0
        """How many letters of the text stand before the end of the last call that was read."""

    def feed(self, piece: str) -> tuple[ToolCall, ...]:
        """The calls that became complete with this piece.

        They were complete before any problem was seen: when the text goes on to be unreadable,
        `finish` takes none of them for read.
        """
        self._text.add(piece)
        return self._read_on()

    def finish(self) -> ParsedOutput:
        """What was read in the whole text: every call that was fed, or no call and a problem."""
        self._text.end()
        self._read_on()
        return (
            ParsedOutput(tuple(self._calls))
            if self._problem is None
            else ParsedOutput((), self._problem)
        )

    def _read_on(self) -> tuple[ToolCall, ...]:
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


def next_call(text: Pieces) -> Steps[ToolCall]:
    """The call whose JSON object begins here.

    Raises:
        ParseError: none begins here, or it is not a call.
    """
    if (yield from text.letter()) != "{":
        raise ParseError(f"no JSON object at {text.position}")
    return call_from_json((yield from next_value(text)))


def next_value(text: Pieces) -> Steps[Json]:
    """The JSON list or object that begins here.

    Raises:
        ParseError: as `decode`, or it is nested too deep.
    """
    start = text.position
    return decode((yield from text.json_text()), start)


def decode(text: str, start: int = 0) -> Json:
    """The JSON value that `text` holds; `start` is where in the whole text it began.

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
    """The same text for calls that are the same as JSON, whatever the order of their keys."""
    return json.dumps([call.name, call.arguments], sort_keys=True)


def _object_in(text: str) -> Json:
    end = Brackets().closed_at(text, 0)
    decoded = decode(text[:end])
    if text[end:].strip():
        raise ParseError("text after the arguments")
    return decoded


def _object_without_twins(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
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
    object_pairs_hook=_object_without_twins,
    parse_constant=_refuse_constant,
    parse_float=_finite,
)

r"""Parser for regular expressions of JSON Schema, ECMAScript's, into what a grammar can hold.

Source: ECMA-262, chapter 22.2, without what needs more than a finite automaton.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple
from unicodedata import category

MAX_COUNT = 2_000
"""Patterns that count further are not translated."""
ESCAPED = frozenset('"\\' + "".join(map(chr, range(0x20))))
"""The characters that JSON text does not hold as they are."""
ESCAPED_CLASS = r'"\\\x00-\x1f'
"""The same within a class of a regular expression."""
_CONTROL_LETTERS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_BEYOND = {
    **dict.fromkeys(("?=", "?!", "?<=", "?<!"), "look-around"),
    **dict.fromkeys("bB", "a word boundary"),
    **dict.fromkeys("k123456789", "a back-reference"),
}


class UnsupportedPattern(Exception):
    """A pattern that no grammar can hold a string to; the message says what in it."""


class Item(NamedTuple):
    """A part of a character class."""

    text: str
    """In the syntax of Rust's classes."""
    escaped: frozenset[str]
    """Which of the characters in it are written as escapes."""
    has_plain: bool = True
    """Whether it has characters that are written as they are."""


@dataclass(frozen=True, slots=True)
class CharacterClass:
    """One character of several."""

    items: tuple[Item, ...]
    is_negated: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """The beginning or the end of the string."""

    is_start: bool


@dataclass(frozen=True, slots=True)
class Free:
    """Any characters, before or after what is searched for."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several."""

    parts: "tuple[Node, ...]"
    flags: str = ""
    """"i" where the case of letters does not matter."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same several times."""

    part: "Node"
    count: str
    """As a regular expression writes it."""


Node = CharacterClass | Edge | Free | Sequence | Choice | Repeat


class PatternParser:
    """A recursive-descent parser for one pattern."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0

    def whole(self) -> Node:
        """The parsed pattern.

        Raises:
            UnsupportedPattern: it is none, or needs more than a finite automaton.
        """
        node = self._choice("i" if self._accept("(?i)") else "")
        if self._at < len(self._text):
            raise UnsupportedPattern("a bracket that was not opened")
        return node

    @property
    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _accept(self, text: str) -> bool:
        is_next = self._text.startswith(text, self._at)
        self._at += len(text) if is_next else 0
        return is_next

    def _take(self) -> str:
        if not (character := self._next):
            raise UnsupportedPattern("an unexpected end")
        self._at += 1
        return character

    def _take_until(self, closing: str) -> str:
        end = self._text.find(closing, self._at)
        if end < 0:
            raise UnsupportedPattern("an unexpected end")
        taken, self._at = self._text[self._at : end], end + len(closing)
        return taken

    def _choice(self, flags: str = "") -> Node:
        parts = [self._sequence()]
        while self._accept("|"):
            parts.append(self._sequence())
        return Choice(tuple(parts), flags)

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._next not in ("", "|", ")"):
            part = self._atom()
            while count := self._count():
                if isinstance(part, Edge):
                    raise UnsupportedPattern("a repeated anchor")
                part = Repeat(part, count)
            parts.append(part)
        return Sequence(tuple(parts))

    def _count(self) -> str:
        count = self._take() if self._next in ("*", "+", "?") else self._braces()
        if count and self._accept("+"):
            raise UnsupportedPattern("a possessive quantifier")
        if count:
            # A lazy quantifier matches the same strings.
            self._accept("?")
        return count

    def _braces(self) -> str:
        """`{2}`, `{2,}` or `{2,3}`; "" where a brace is a character like others."""
        if self._next != "{" or (end := self._text.find("}", self._at, self._at + 16)) < 0:
            return ""
        few, comma, many = self._text[self._at + 1 : end].partition(",")
        if not all(each.isdecimal() and each.isascii() for each in (few + many, few or "0")):
            return ""
        if not few or (many and int(many) < int(few)):
            raise UnsupportedPattern("a count that is none")
        if max(int(few), int(many or 0)) > MAX_COUNT:
            raise UnsupportedPattern(f"a count above {MAX_COUNT:,}")
        self._at = end + 1
        return f"{{{few}{comma}{many}}}"

    def _atom(self) -> Node:
        match character := self._take():
            case "^" | "$":
                return Edge(character == "^")
            case ".":
                return CharacterClass((_one("\n"),), is_negated=True)
            case "(":
                return self._group()
            case "[":
                return self._class()
            case "\\":
                return self._escape()
            case "*" | "+" | "?":
                raise UnsupportedPattern("a quantifier of nothing")
        return CharacterClass((_one(character),))

    def _group(self) -> Node:
        if opening := next((each for each in _BEYOND if self._accept(each)), None):
            raise UnsupportedPattern(_BEYOND[opening])
        flags = "i" if self._accept("?i:") else ""
        if self._accept("?P<") or self._accept("?<"):
            self._take_until(">")
        elif not flags and not self._accept("?:") and self._next == "?":
            raise UnsupportedPattern("flags in its middle")
        inside = self._choice(flags)
        if self._take() != ")":
            raise UnsupportedPattern("a bracket that is not closed")
        return inside

    def _escape(self) -> Node:
        if self._next in ("A", "Z", "z"):
            return Edge(self._take() == "A")
        if self._next in _BEYOND:
            raise UnsupportedPattern(_BEYOND[self._next])
        found = self._escaped()
        return CharacterClass((found if isinstance(found, Item) else _one(found),))

    def _class(self) -> Node:
        is_negated = self._accept("^")
        if self._next == "]":
            raise UnsupportedPattern("an empty class")
        items: list[Item] = []
        while not self._accept("]"):
            first = self._class_part()
            if self._next == "-" and self._text[self._at + 1 : self._at + 2] not in ("", "]"):
                self._take()
                items += _range(first, self._class_part())
            else:
                items.append(first if isinstance(first, Item) else _one(first))
        return CharacterClass(tuple(items), is_negated)

    def _class_part(self) -> str | Item:
        character = self._take()
        if character != "\\":
            return character
        return "\b" if self._accept("b") else self._escaped()

    def _escaped(self) -> str | Item:
        """The character, or the class, of an escape after its backslash."""
        letter = self._take()
        if letter in _CLASSES:
            return _CLASSES[letter]
        if letter in "pP":
            return self._property(is_negated=letter == "P")
        if letter in _CONTROL_LETTERS:
            return _CONTROL_LETTERS[letter]
        if letter in "xu":
            return self._code_point(letter)
        if letter == "c" and self._next.isascii() and self._next.isalpha():
            return chr(ord(self._take()) % 32)
        if letter.isalnum():
            raise UnsupportedPattern(f"the escape \\{letter}")
        return letter

    def _code_point(self, letter: str) -> str:
        if letter == "u" and self._accept("{"):
            digits = self._take_until("}")
        else:
            digits = self._text[self._at : self._at + (2 if letter == "x" else 4)]
            self._at += len(digits)
        try:
            code = int(digits[:8], 16)
            if 0xD800 <= code < 0xDC00 and self._accept("\\u"):
                code = 0x10000 + (code - 0xD800) * 0x400 + ord(self._code_point("u")) - 0xDC00
            return chr(code)
        except ValueError:
            raise UnsupportedPattern(f"the escape \\{letter}{digits[:8]}") from None

    def _property(self, is_negated: bool) -> Item:
        name = self._take_until("}") if self._accept("{") else self._take()
        short = name.removeprefix("General_Category=").removeprefix("gc=")
        if short not in _categories():
            raise UnsupportedPattern(f"\\p{{{name[:40]}}}")
        within = (c for c in ESCAPED if category(c).startswith(short) != is_negated)
        return Item(f"\\{'P' if is_negated else 'p'}{{{short}}}", frozenset(within))


def code_point(character: str) -> str:
    """The escape of a character in a regular expression of Rust's.

    Raises:
        UnsupportedPattern: it is half of a surrogate pair, which Rust's strings do not have.
    """
    if "\ud800" <= character <= "\udfff":
        raise UnsupportedPattern("half of a surrogate pair")
    return f"\\x{{{ord(character):X}}}"


def _one(character: str) -> Item:
    escaped = frozenset(character) & ESCAPED
    return Item(code_point(character), escaped, not escaped)


def _range(first: str | Item, last: str | Item) -> list[Item]:
    if isinstance(first, Item) or isinstance(last, Item):
        # Beside a class a hyphen is one.
        ends = (each if isinstance(each, Item) else _one(each) for each in (first, last))
        return [*ends, _one("-")]
    if first > last:
        raise UnsupportedPattern("a range that is none")
    within = frozenset(c for c in ESCAPED if first <= c <= last)
    return [
        Item(
            f"{code_point(first)}-{code_point(last)}",
            within,
            last > "\x1f" and first + last != '""',
        )
    ]


@cache
def _categories() -> frozenset[str]:
    names = {category(chr(code)) for code in range(0x3000)} - {"Cs", "Cn"}
    return frozenset(names | {name[0] for name in names})


_SPACES = frozenset("\t\n\v\f\r")
_CLASSES = {
    "d": Item(r"\d", frozenset()),
    "D": Item(r"\D", ESCAPED),
    "w": Item(r"\w", frozenset()),
    "W": Item(r"\W", ESCAPED),
    "s": Item(r"\s", _SPACES),
    "S": Item(r"\S", ESCAPED - _SPACES),
}
